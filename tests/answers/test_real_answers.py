"""Real answers: 480 recorded completions, and the gold answers of six benchmarks with rewritings and perturbations by rule.

`ENTROPILOT_DATA=… python tests/answers/test_real_answers.py` prints the table of docs/results/answer_agreement.md.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from entropilot.answers.clusters import cluster
from entropilot.answers.extraction.extract import extract
from entropilot.answers.judge import Judge
from entropilot.answers.judges import build_judge

FILES = ("math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench")
_FRACTION = re.compile(r"\\d?frac\s?(?:\{(\d+)\}|(\d))\s?(?:\{(\d+)\}|(\d))")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_EXPRESSION = re.compile(
    r"(?:[-+*/^(){}\d\s.]|[a-zA-Z]_?|\\(?:d?frac|sqrt|pi|cdot|sin|cos|omega|tau)(?![a-zA-Z]))+"
)


def golds(folder: Path) -> list[tuple[str, str]]:
    """(file, answer) of every problem."""
    return [
        (name, str(json.loads(line)["answer"]))
        for name in FILES
        for line in (folder / "math" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def rewritings(gold: str) -> dict[str, str]:
    """Other spellings of the same answer, by the name of the rule that made each."""
    plain = gold.strip()
    bare = plain[1:-1].strip() if plain[:1] == plain[-1:] == "$" and plain.count("$") == 2 else plain
    found = {"as it is": gold, "in dollars": f"${bare}$" if "$" not in bare else bare, "spaced": f" {bare} ."}
    if re.fullmatch(r"-?\d+", bare):
        number = int(bare)
        found |= {
            "n.0": f"{number}.0",
            "named": f"x = {number}",
            "as a fraction": rf"\frac{{{3 * number}}}{{3}}",
        }
        if abs(number) >= 1000:
            found["thousands"] = f"{number:,}"
    elif re.fullmatch(r"-?\d*\.\d+", bare):
        value = Fraction(bare)
        found |= {"a/b": f"{value.numerator}/{value.denominator}", "trailing zero": bare + "0"}
    fraction = _FRACTION.search(bare)
    if fraction:
        a, b, c, d = fraction.groups()
        top, bottom = a or b, c or d
        before, after = bare[: fraction.start()], bare[fraction.end() :]
        found["dfrac"] = f"{before}\\dfrac{{{top}}}{{{bottom}}}{after}"
        if len(top) == len(bottom) == 1:
            found["frac12"] = f"{before}\\frac{top}{bottom}{after}"
        if before in ("", "-") and not after:
            found["a/b"] = f"{before}{top}/{bottom}"
            value = Fraction(int(top), int(bottom))
            if set(_factors(value.denominator)) <= {2, 5}:
                found["decimal"] = f"{before}{_decimal(value)}"
    if "\\sqrt{" in bare:
        found["root as a power"] = re.sub(r"\\sqrt\{(\d+)\}", r"(\1)^{1/2}", bare)
    if "^\\circ" in bare:
        found["no degrees"] = bare.replace("^\\circ", "")
    if bare.startswith(("(", "[")) and bare.endswith((")", "]")) and "," in bare and "cup" not in bare:
        found["left right"] = f"\\left{bare[:-1]}\\right{bare[-1]}".replace(",", " , ")
    pieces = re.split(r",\s?", bare)
    if len(pieces) > 1 and all(re.fullmatch(r"-?\d{1,2}", piece.strip("$ ")) for piece in pieces):
        found["reversed list"] = ", ".join(reversed(pieces))
    if (
        _EXPRESSION.fullmatch(bare)
        and re.search(r"[a-zA-Z\\]", bare)
        and not re.search(r"[A-Za-z]{3}", _bare_words(bare))
    ):
        found |= {"plus 1 minus 1": f"{bare} + 1 - 1", "half of twice": rf"\frac{{2({bare})}}{{2}}"}
    return found


def _bare_words(text: str) -> str:
    return re.sub(r"\\[a-zA-Z]+", "", text)


def _factors(number: int) -> list[int]:
    found = []
    for prime in (2, 5):
        while number % prime == 0:
            found.append(prime)
            number //= prime
    return [*found, number] if number > 1 else found


def _decimal(value: Fraction) -> str:
    """A fraction of powers of 2 and 5, written out."""
    places = len(_factors(value.denominator))
    digits = str(value.numerator * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def perturbations(gold: str) -> dict[str, str]:
    """Other answers that are near the gold one, by the name of the rule."""
    bare = gold.strip().strip("$").strip()
    found = {}
    numbers = [match for match in _NUMBER.finditer(bare) if bare[: match.start()][-1:] not in ("_",)]
    if numbers:
        for name, match in (("first number + 1", numbers[0]), ("last number + 1", numbers[-1])):
            text = match.group()
            more = str(int(text) + 1) if "." not in text else text[:-1] + str((int(text[-1]) + 1) % 10)
            found[name] = bare[: match.start()] + more + bare[match.end() :]
    simple = re.fullmatch(r"-?(?:[\d.]+|\\frac\{[\d.]+\}\{[\d.]+\}|\d*\\sqrt\{\d+\})", bare)
    if simple and bare != "0":
        found["sign"] = bare[1:] if bare.startswith("-") else f"-{bare}"
    if simple and re.search("[1-9]", bare):
        found["ten times"] = rf"10 \cdot {bare}" if bare[0] != "-" else rf"-10 \cdot {bare[1:]}"
    if bare.startswith("\\text{") and bare.endswith("}") and len(bare) > 10:
        found["another word"] = "\\text{not" + bare[6:]
    return found


def measure(judge: Judge, folder: Path) -> tuple[Counter, Counter, list[tuple[str, str, str, str]]]:
    """Per (file, rule): how many pairs, how many wrong verdicts; and the wrong ones as (kind, rule, gold, other)."""
    rows = [
        (kind, name, rule, gold, other)
        for name, gold in golds(folder)
        for kind, others in (("same", rewritings(gold)), ("other", perturbations(gold)))
        for rule, other in others.items()
    ]
    verdicts = judge.equivalent([(gold, other) for *_, gold, other in rows])
    # Again, now that the judge has a quick look at most of them: it must say the same.
    assert judge.equivalent([(other, gold) for *_, gold, other in rows]) == verdicts
    counts: Counter = Counter()
    wrong: Counter = Counter()
    cases = []
    for (kind, name, rule, gold, other), verdict in zip(rows, verdicts, strict=True):
        counts[kind, name, rule] += 1
        if verdict != (kind == "same"):
            wrong[kind, name, rule] += 1
            cases.append((kind, rule, gold, other))
    return counts, wrong, cases


PAGE = Path(__file__).parents[2] / "docs" / "results" / "answer_agreement.md"
# The rules in the order of the page's tables, and what it calls each.
CALLED = {
    "same": {
        "as it is": "as it is",
        "in dollars": "in dollars",
        "spaced": "with blanks and a full stop",
        "n.0": "n.0",
        "named": "x = n",
        "as a fraction": "3n/3 as a fraction",
        "thousands": "thousands separators",
        "a/b": "a/b",
        "dfrac": r"`\dfrac`",
        "frac12": r"`\frac12`",
        "decimal": "as a decimal, where it ends",
        "trailing zero": "trailing zero",
        "left right": r"`\left( … \right)` and blanks",
        "no degrees": "degree sign left out",
        "reversed list": "list in reverse",
        "root as a power": r"`\sqrt{n}` as `(n)^{1/2}`",
        "plus 1 minus 1": "+ 1 − 1",
        "half of twice": r"`\frac{2(…)}{2}`",
    },
    "other": {
        "first number + 1": "the first number + 1",
        "last number + 1": "the last number + 1",
        "sign": "the sign",
        "ten times": "ten times as much",
        "another word": "another word",
    },
}


def by_rule(kind: str, counts: Counter, wrong: Counter) -> str:
    """Return the rows of the page's table of one kind: pairs and wrong verdicts of every rule, and of all."""
    tallies = [Counter(), Counter()]
    for tally, counted in zip(tallies, (counts, wrong), strict=True):
        for (side, _, rule), count in counted.items():
            tally[rule] += count if side == kind else 0
    pairs, failed = tallies
    assert {rule for rule, count in pairs.items() if count} == set(CALLED[kind])
    rows = [f"| {called} | {pairs[rule]} | {failed[rule]} |" for rule, called in CALLED[kind].items()]
    return "\n".join([*rows, f"| **all** | **{pairs.total()}** | **{failed.total()}** |"])


@pytest.mark.slow(seconds=35)
def test_gold_answers_equal_themselves_and_rewritings_and_no_perturbation(
    math_judge: Judge, data_dir: Path
) -> None:
    counts, wrong, cases = measure(math_judge, data_dir)
    total = Counter()
    for (kind, _, rule), count in counts.items():
        total[kind if rule != "as it is" else "self"] += count
    assert total["self"] == 1547
    assert total["same"] > 5000
    assert total["other"] > 4000
    assert sum(wrong[key] for key in wrong if key[2] == "as it is") == 0
    page = PAGE.read_text(encoding="utf-8")
    for kind in CALLED:
        assert by_rule(kind, counts, wrong) in page
    found = Counter(kind for kind, *_ in cases)
    assert found["same"] <= REWRITINGS_MISSED, cases
    assert found["other"] <= PERTURBATIONS_MERGED, cases


# What was measured (docs/results/answer_agreement.md lists each one).
REWRITINGS_MISSED = 0
PERTURBATIONS_MERGED = 0


def recorded(folder: Path) -> list[dict]:
    lines = (folder / "completions" / "qwen_math_8x60.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("with_questions", [False, True])
def test_the_recorded_verdicts_of_480_completions(
    math_judge: Judge, data_dir: Path, with_questions: bool
) -> None:
    rows = recorded(data_dir)
    answers = [[extract(completion) for completion in row["completions"]] for row in rows]
    assert not [answer for group in answers for answer in group if answer is None]
    pairs = [(row["answer"], answer) for row, group in zip(rows, answers, strict=True) for answer in group]
    questions = [row["problem"] for row in rows for _ in range(8)] if with_questions else None
    correct = [verdict for row in rows for verdict in row["correct"]]
    verdicts = math_judge.equivalent(pairs, questions)
    disagreements = [
        pair for pair, mine, theirs in zip(pairs, verdicts, correct, strict=True) if mine != theirs
    ]
    assert len(correct) == 480
    assert disagreements == []
    told = "verdict against the gold answer, with the question" if with_questions else "verdict without it"
    agree = len(pairs) - len(disagreements)
    assert f"| {told} | {agree} | {len(pairs)} |" in PAGE.read_text(encoding="utf-8")


def test_the_extraction_agrees_with_the_recorded_one(math_judge: Judge, data_dir: Path) -> None:
    rows = recorded(data_dir)
    pairs = [
        (extract(completion) or "", theirs)
        for row in rows
        for completion, theirs in zip(row["completions"], row["extracted"], strict=True)
    ]
    differ = {pair for pair, same in zip(pairs, math_judge.equivalent(pairs), strict=True) if not same}
    assert differ == set()
    equivalent, spelled = len(pairs) - len(differ), sum(ours == theirs for ours, theirs in pairs)
    page = PAGE.read_text(encoding="utf-8")
    assert f"| extracted answer equivalent to the recorded one | {equivalent} | {len(pairs)} |" in page
    assert f"| extracted answer in the same spelling | {spelled} | {len(pairs)} |" in page


def test_clusters_of_real_groups_are_those_of_the_recorded_verdicts(
    math_judge: Judge, data_dir: Path
) -> None:
    """All right answers of a group are one cluster, and no wrong one is in it."""
    rows = recorded(data_dir)
    groups = [[extract(completion) for completion in row["completions"]] for row in rows]
    for row, found in zip(rows, cluster(groups, math_judge, [row["problem"] for row in rows]), strict=True):
        right = {label for label, correct in zip(found.labels, row["correct"], strict=True) if correct}
        wrong = {label for label, correct in zip(found.labels, row["correct"], strict=True) if not correct}
        assert len(right) <= 1
        assert not right & wrong


if __name__ == "__main__":
    place = Path(os.environ["ENTROPILOT_DATA"])
    made, failed, listed = measure(build_judge("math"), place)
    for side in ("same", "other"):
        for label in sorted({rule for kind, _, rule in made if kind == side}):
            n = sum(made[key] for key in made if key[0] == side and key[2] == label)
            bad = sum(failed[key] for key in failed if key[0] == side and key[2] == label)
            sys.stdout.write(f"| {side} | {label} | {n} | {bad} |\n")
    for side in ("same", "other"):
        for file in FILES:
            n = sum(made[key] for key in made if key[:2] == (side, file))
            bad = sum(failed[key] for key in failed if key[:2] == (side, file))
            sys.stdout.write(f"| {side} | {file} | {n} | {bad} |\n")
    for case in listed:
        sys.stdout.write(f"{case}\n")
