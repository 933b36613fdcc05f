"""Turn samples into scores: extraction, verdicts, clusters, and the measures of an evaluation.

Nothing here knows of a model: recorded completions and fresh samples go the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from entropilot.analysis.passk import Estimate, estimates, ladder, majority, pass_values, sampling_error
from entropilot.answers.clusters import cluster
from entropilot.answers.extraction.extract import RULES, extract
from entropilot.answers.grading import gold_answer
from entropilot.answers.grading import grade as compare
from entropilot.answers.judge import Judge, name_of
from entropilot.answers.judges import build_judge
from entropilot.answers.unanswered import MANY, none_is_right
from entropilot.errors import UserError
from entropilot.inputs.problems import RESERVED_COLUMNS
from entropilot.recipes.schema import Data
from entropilot.rewards.named import RewardFunction, build_reward
from entropilot.sandbox.tasks import tier_of

BLOCK = 128  # problems whose pairs go to a judge at once
JUDGES = ("math", "exact")
SHARES = frozenset({"accuracy", "majority", "truncated", "no_answer"})


def is_share(measure: str) -> bool:
    """Tell whether a measure's values lie in [0, 1]; rewards of one's own are taken to."""
    return measure in SHARES or measure.startswith("pass@")


def default_reward(source: str) -> str:
    """Return the reward of a data source: its own where it has one, else math."""
    kind = Data(source=source).kind
    return "math" if kind == "rows" else kind


@dataclass
class Grader:
    """Hold how the answers of a data source are found, judged and clustered.

    Attributes:
        name: math, exact, none, or the name of a reward function.
        rule: of extraction; `mark` is what stands behind the last `#` (the sandbox).
        judge: of the equivalence of two answers.
        reward: scores the whole text instead of the judge; None lets the judge compare answer and gold.
    """

    name: str
    rule: str
    judge: Judge
    reward: RewardFunction | None = None

    def answer(self, text: str) -> str | None:
        """Return the final answer of a completion, None where it gives none."""
        return extract(text, self.rule)

    def failures(self) -> int:
        """Return how many pairs the judge has given up so far (deadline, memory, crash); they count as different."""
        report = getattr(self.judge, "report", None)
        return sum(report.counts.values()) if report is not None else 0


def build_grader(
    reward: str | None, source: str, rule: str | None = None, judge: Judge | None = None
) -> Grader:
    """Return the grader of a data source.

    Args:
        reward: math, exact, none, sandbox, reasoning_gym, a dotted path; None chooses by the source.
        source: of the data.
        rule: of extraction; None chooses by the reward.
        judge: compares answer and gold in place of a reward.

    Raises:
        UserError: there is no such reward or rule.
    """
    name = reward or default_reward(source)
    if rule is not None and rule not in RULES:
        raise UserError(f"--extract is {rule!r}; choose one of {', '.join(RULES)}.")
    if judge is not None:
        return Grader(name_of(judge), rule or ("auto" if tier_of(source) is None else "mark"), judge)
    if name == "none":
        return Grader(name, rule or "auto", build_judge("exact"))
    if name in JUDGES:
        return Grader(name, rule or {"math": "auto", "exact": "last_line"}[name], build_judge(name))
    function = build_reward(name, tier_of(source))
    usual = {"sandbox": "mark", "reasoning_gym": "last_line"}.get(name.partition(":")[0], "auto")
    return Grader(name, rule or usual, build_judge("exact"), function)


def grade(
    lines: Iterable[Mapping[str, Any]],
    grader: Grader,
    columns: Mapping[tuple[str, int], Mapping[str, Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the graded form of each line of samples, in order, a block of problems at a time.

    Args:
        lines: of `samples.jsonl`: data, temperature, index, key, id, question, answer, texts, and where known ids,
            entropy and cut.
        grader: of their data.
        columns: (data, index) → the row of the problem, for reward functions that ask for other columns.

    A graded line has answers and labels (of clusters) per sample, scores (None without a gold answer), majority
    (maj@K), semantic_entropy in nats (None with one sample), and the means entropy, tokens, truncated, no_answer.
    """
    stream = iter(lines)
    while block := list(islice(stream, BLOCK)):
        answers = [[grader.answer(text) for text in line["texts"]] for line in block]
        clusters = cluster(answers, grader.judge, [line.get("question") for line in block])
        scores = _scores(block, answers, grader, columns or {})
        for line, found, given in zip(block, clusters, scores, strict=True):
            samples = len(line["texts"])
            entropy = [value for value in line.get("entropy") or [] if value is not None]
            yield {
                **{name: line.get(name) for name in ("data", "temperature", "index", "key", "id", "answer")},
                "answers": found.answers,
                "labels": found.labels,
                "scores": given,
                "majority": None if given is None else majority(found.labels, given, found.missing),
                "semantic_entropy": found.semantic_entropy if samples > 1 else None,
                "entropy": sum(entropy) / len(entropy) if entropy else None,
                "tokens": _mean([len(ids) for ids in line["ids"]] if line.get("ids") else []),
                "truncated": _mean(line.get("cut") or []),
                "no_answer": _mean(found.missing),
            }


def no_answer_warning(name: str, graded: Sequence[Mapping[str, Any]], example: str, rule: str) -> list[str]:
    """Return a warning where no completion of a data source holds an answer, or many do and none is right; else nothing.

    Args:
        name: of the data source.
        graded: its lines.
        example: one of the completions.
        rule: of extraction that found nothing.
    """
    if not graded:
        return []
    if any(line["no_answer"] != 1.0 for line in graded):
        return _none_right(name, graded)
    count = sum(len(line["answers"]) for line in graded)
    cut = _mean([line["truncated"] for line in graded if line["truncated"] is not None])
    shown = example if len(example) <= 120 else "…" + example[-120:]
    length = "" if not cut else f" ({cut:.0%} were cut at --max-tokens)"
    where = "a `#` before the answer" if rule == "mark" else f"--extract {rule}"
    return [
        f"warning: {name}: none of {count} completions holds an answer{length}, so accuracy says nothing about the "
        f"model. The rule was {where}; one completion ends with {shown!r}. Choose another rule with --extract, or raise "
        "--max-tokens."
    ]


def _none_right(name: str, graded: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [line for line in graded if line["scores"] is not None and line["answer"] is not None]
    found = [(answer, line["answer"]) for line in lines for answer in line["answers"] if answer is not None]
    if len(found) < MANY or any(score > 0 for line in lines for score in line["scores"]):
        return []
    answer, gold = found[0]
    return [f"warning: {name}: {none_is_right(len(found), (answer, gold_answer(gold) or gold))}."]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _scores(
    block: list[Mapping[str, Any]],
    answers: list[list[str | None]],
    grader: Grader,
    columns: Mapping[tuple[str, int], Mapping[str, Any]],
) -> list[list[float] | None]:
    """Return scores_P_G, None for a problem that nothing can be compared with."""
    if grader.name == "none":
        return [None] * len(block)
    if grader.reward is None:
        golds = [None if line["answer"] is None else gold_answer(line["answer"]) for line in block]
        verdicts = compare(answers, golds, grader.judge, [line.get("question") for line in block])
        return [None if given is None else [float(right) for right in given] for given in verdicts]
    flat = [(line, text, k) for line in block for k, text in enumerate(line["texts"])]
    rows = [columns.get((str(line["data"]), int(line["index"])), {}) for line, _, _ in flat]
    taken = {"prompt", "answer", "prompts", *RESERVED_COLUMNS}
    names = dict.fromkeys(name for row in rows for name in row if name not in taken)
    chat = not isinstance(rows[0].get("prompt", ""), str)
    given = grader.reward(
        prompts=[row.get("prompt") for row in rows],
        completions=[[{"role": "assistant", "content": text}] if chat else text for _, text, _ in flat],
        completion_ids=[(line.get("ids") or {k: []})[k] for line, _, k in flat],
        answer=[line["answer"] for line, _, _ in flat],
        **{name: [row.get(name) for row in rows] for name in names},
    )
    found: list[list[float] | None] = []
    start = 0
    for line in block:
        part = given[start : start + len(line["texts"])]
        start += len(part)
        # A reward that scores nothing of a problem had nothing to compare with; single gaps (None, nan) count as wrong.
        plain = [0.0 if score is None or score != score else float(score) for score in part]
        found.append(None if all(score is None for score in part) else plain)
    return found


def columns_of(graded: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the measures of each problem, (p,) each, nan where there is none; pass@k for k = 1, 2, 4, …, K."""

    def column(name: str) -> np.ndarray:
        return np.array([math.nan if line[name] is None else line[name] for line in graded], dtype=np.float64)

    judged = [place for place, line in enumerate(graded) if line["scores"] is not None]
    scores = [graded[place]["scores"] for place in judged]
    found = {}

    def of_judged(values: Any) -> np.ndarray:
        whole = np.full(len(graded), math.nan)
        whole[judged] = values
        return whole

    if judged:
        found["accuracy"] = of_judged([sum(row) / len(row) for row in scores])
        for k in ladder(min(map(len, scores))):
            found[f"pass@{k}"] = of_judged(pass_values(scores, k))
        if min(map(len, scores)) > 1:
            found["majority"] = column("majority")
    found |= {
        name: column(name) for name in ("semantic_entropy", "entropy", "tokens", "truncated", "no_answer")
    }
    found["token_entropy"] = found.pop("entropy")
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def measure(graded: Sequence[Mapping[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """Return the measures of one data source at one temperature as plain data.

    accuracy is avg@K. `intervals` holds the 95 % bootstrap interval over problems of every measure, `sampling_se` the
    standard error of avg@K if the same problems were sampled again (None with one sample per problem).
    """
    columns = columns_of(graded)
    found = estimates(columns, share=[name for name in columns if is_share(name)], seed=seed)
    counts = {len(line["answers"]) for line in graded}
    judged = [line["scores"] for line in graded if line["scores"] is not None]
    return {
        "problems": len(graded),
        "graded": len(judged),
        "samples": counts.pop() if len(counts) == 1 else [min(counts), max(counts)],
        **{name: result.value for name, result in found.items()},
        "sampling_se": sampling_error(judged),
        "intervals": {name: _ends(result) for name, result in found.items()},
    }


def _ends(result: Estimate) -> list[float] | None:
    return None if result.low is None or result.high is None else [result.low, result.high]
