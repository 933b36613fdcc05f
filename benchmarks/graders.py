r"""Compare the judge `math` with three graders: how often each rejects an equal pair, accepts an unequal one, and its time.

    python benchmarks/graders.py --cases answers.jsonl --sympy /path/to/python ENTROPILOT_DATA

Pairs: the rows of `--cases` (or of the file in ENTROPILOT_CASES) that have a, b and expected; and the gold answers of six
benchmarks with rewritings (equal) and perturbations (unequal), as in tests/answers/test_real_answers.py, one of `--every`.

Graders, each asked pair by pair in a process of its own, which is killed and started anew after `--deadline` seconds (a
pair that it did not finish counts as unequal): math-verify alone; sympy's `parse_latex` and `simplify`, which needs an
environment with sympy and antlr4-python3-runtime 4.11 (`--sympy` names its interpreter); and the rules of Qwen2.5-Math's
evaluation, written here from their description: relative tolerance 1e-4, a percentage or a hundredth of it, brackets
taken off, equations by their sides, then algebra.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Pair = tuple[str, str]
HERE = Path(__file__).resolve()


# --- the graders, each run by `graders.py --serve NAME` -------------------------------------------------------------


def math_verify_alone() -> Callable[[str, str], bool]:
    from math_verify import parse, verify

    def grade(gold: str, answer: str) -> bool:
        # In dollars, as its own examples have it; its timeouts are off, since this process may be killed.
        one, other = (parse(f"${text.strip().strip('$')}$", parsing_timeout=None) for text in (gold, answer))
        return bool(verify(one, other, timeout_seconds=None))

    return grade


def _plain(text: str) -> str:
    text = text.strip().replace("$", "").replace("\\left", "").replace("\\right", "").replace("\\!", "")
    return re.sub(r"\\[dtc]frac", r"\\frac", text).strip()


def _same_by_algebra(one: Any, other: Any) -> bool:
    from sympy import simplify

    if one == other:
        return True
    try:
        return simplify(one - other) == 0
    except Exception:
        return False


def sympy_latex() -> Callable[[str, str], bool]:
    from sympy.parsing.latex import parse_latex

    parse_latex("1")  # says now what is missing

    def grade(gold: str, answer: str) -> bool:
        one, other = _plain(gold), _plain(answer)
        if one == other:
            return True
        try:
            return _same_by_algebra(parse_latex(one), parse_latex(other))
        except Exception:
            return False

    return grade


def qwen_rules() -> Callable[[str, str], bool]:
    from latex2sympy2_extended import latex2sympy
    from sympy import N

    def number(text: str) -> float | None:
        text = text.replace(",", "")
        try:
            return float(text.removesuffix("%").removesuffix("\\")) / (100 if text.endswith("%") else 1)
        except ValueError:
            return None

    def strip(text: str) -> str:
        text = _plain(text).rstrip(".").replace("\n", "").replace("^{\\circ}", "").replace("^\\circ", "")
        text = re.sub(r"\\(?:text|mbox)\{ [^{}]*\}$", "", text).replace("\\text", "").replace("\\{", "{")
        text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text.replace("\\}", "}"))
        text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text).replace(" ", "")
        text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
        sides = text.split("=")
        return sides[1] if len(sides) == 2 and len(sides[0]) <= 2 else text

    def symbolic(one: str, other: str) -> bool:
        try:
            a, b = latex2sympy(one), latex2sympy(other)
        except Exception:
            return one == other
        if _same_by_algebra(a, b):
            return True
        try:
            return math.isclose(float(N(a)), float(N(b)), rel_tol=1e-4)
        except Exception:
            return False

    def grade(gold: str, answer: str) -> bool:
        one, other = strip(gold), strip(answer)
        if one.lower() == other.lower():
            return True
        a, b = number(one), number(other)
        if a is not None and b is not None:
            return any(math.isclose(value, b, rel_tol=1e-4) for value in (a / 100, a, a * 100))
        bare = [re.sub(r"[{}()\[\]]", "", text).lower() for text in (one, other)]
        if bare[0] == bare[1]:
            return True
        if all(re.fullmatch(r"[(\[].+[)\]]", text) for text in (one, other)):
            lists = [text[1:-1].split(",") for text in (one, other)]
            if len(lists[0]) == len(lists[1]) > 1:
                return all(grade(x, y) for x, y in zip(*lists, strict=True))
        if one.count("=") == other.count("=") == 1:
            left, right = ("-".join(f"({side})" for side in text.split("=")) for text in (one, other))
            return symbolic(left, right) or symbolic(f"-({left})", right)
        return symbolic(one, other)

    return grade


GRADERS = {
    "math-verify alone": math_verify_alone,
    "sympy parse_latex": sympy_latex,
    "Qwen's rules": qwen_rules,
}


def serve(name: str) -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        grade = GRADERS[name]()
    except Exception as error:
        replies.write(json.dumps({"missing": str(error).strip().split("\n")[0]}) + "\n")
        return
    replies.write(json.dumps({"ready": True}) + "\n")
    replies.flush()
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            said: Any = bool(grade(gold, answer))
        except Exception as error:
            said = type(error).__name__
        replies.write(json.dumps({"done": said}) + "\n")
        replies.flush()


class Grader:
    """One grader in its own process."""

    def __init__(self, name: str, python: str, deadline: float) -> None:
        self.name, self.python, self.deadline = name, python, deadline
        self.raised = self.late = 0
        self.start()

    def start(self) -> None:
        command = [self.python, str(HERE), "--serve", self.name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.missing = json.loads(self.process.stdout.readline() or '{"missing": "it ended"}').get("missing")

    def grade(self, pair: Pair) -> bool:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(pair) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], self.deadline)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.late += 1
            self.stop()
            self.start()
            return False
        said = json.loads(line)["done"]
        self.raised += isinstance(said, str)
        return said is True

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


# --- the pairs --------------------------------------------------------------------------------------------------------


def case_pairs(file: Path) -> Iterator[tuple[Pair, bool]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "a" in row and "b" in row and isinstance(row.get("expected"), bool):
            yield (row["a"], row["b"]), row["expected"]


def gold_pairs(data: Path, every: int) -> Iterator[tuple[Pair, bool]]:
    place = HERE.parents[1] / "tests" / "answers" / "test_real_answers.py"
    spec = importlib.util.spec_from_file_location("real_answers", place)
    assert spec is not None and spec.loader is not None
    rules = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rules)
    rows = [
        ((gold, other), kind == "equal")
        for _, gold in rules.golds(data)
        for kind, others in (("equal", rules.rewritings(gold)), ("unequal", rules.perturbations(gold)))
        for other in others.values()
    ]
    yield from rows[::every]


def row_of(name: str, verdicts: list[bool], expected: list[bool], seconds: float, remark: str = "") -> str:
    counts = Counter(zip(expected, verdicts, strict=True))
    equal, unequal = sum(expected), len(expected) - sum(expected)
    return (
        f"| {name} | {counts[True, False]} of {equal} | {counts[False, True]} of {unequal} "
        f"| {seconds:.1f} | {remark} |"
    )


def compare(
    title: str, rows: list[tuple[Pair, bool]], pythons: dict[str, str], deadline: float, show: bool
) -> None:
    from entropilot.answers.judges import build_judge

    pairs, expected = [pair for pair, _ in rows], [wanted for _, wanted in rows]
    print(f"\n{title}: {len(rows)} pairs\n")
    print("| grader | false rejects | false accepts | seconds | |\n|---|---|---|---|---|")
    judge = build_judge("math")
    judge.equivalent([(r"\sqrt{11}", r"\sqrt{13}")])  # the workers are up, as those of the others
    start = time.perf_counter()
    verdicts = judge.equivalent(pairs)
    print(row_of("entropilot, judge `math`", verdicts, expected, time.perf_counter() - start))
    wrong = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict != row[1]]
    for name, python in pythons.items():
        grader = Grader(name, python, deadline)
        if grader.missing:
            print(f"| {name} | not run: {grader.missing} | | | |")
            continue
        start = time.perf_counter()
        verdicts = [grader.grade(pair) for pair in pairs]
        seconds = time.perf_counter() - start
        grader.stop()
        remark = f"{grader.late} not finished, {grader.raised} raised" if grader.late + grader.raised else ""
        print(row_of(name, verdicts, expected, seconds, remark), flush=True)
    if show:
        for (a, b), wanted in wrong:
            print(f"ours: {a!r} and {b!r} should be {'equal' if wanted else 'unequal'}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", default=os.environ.get("ENTROPILOT_DATA"))
    parser.add_argument("--cases", default=os.environ.get("ENTROPILOT_CASES"))
    parser.add_argument(
        "--sympy", default=sys.executable, help="interpreter with antlr4-python3-runtime 4.11"
    )
    parser.add_argument("--every", type=int, default=1, help="take one of so many gold pairs")
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds a pair")
    parser.add_argument("--show", action="store_true", help="list our own wrong verdicts")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    pythons = {name: given.sympy if name.startswith("sympy") else sys.executable for name in GRADERS}
    if given.cases:
        compare("Cases", [*case_pairs(Path(given.cases))], pythons, given.deadline, given.show)
    else:
        print("Cases skipped: name the file with --cases or ENTROPILOT_CASES.")
    if given.data:
        rows = [*gold_pairs(Path(given.data), given.every)]
        compare(f"Gold answers, one of {given.every}", rows, pythons, given.deadline, given.show)
    else:
        print("Gold answers skipped: name their folder, or set ENTROPILOT_DATA.")


if __name__ == "__main__":
    main()
