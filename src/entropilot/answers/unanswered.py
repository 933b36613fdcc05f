"""Notice where no completion holds an answer, or none is right: a wrong rule looks like a model that knows nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from entropilot.answers.grading import gold_answer
from entropilot.answers.judged_rows import Judged

SHOWN = 120  # characters of the example
MANY = 20  # answers of which none is right, before that is said


def none_is_right(answers: int, example: tuple[str, str]) -> str:
    """Return what is wrong where answers were found and none of them is right, with an answer and its gold answer."""
    answer, gold = (repr(" ".join(text.split())[:SHOWN]) for text in example)
    return (
        f"none of {answers} answers is right; the first one is {answer}, and its gold answer {gold}. If they mean the "
        "same, choose another rule with --extract, or another judge"
    )


class Unanswered:
    """Count completions and their answers, and keep the first completion as an example.

    Args:
        rule: of extraction, as the user names it.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.completions = self.answers = self.right = self.graded = 0
        self.example = ""
        self.wrong: tuple[str, str] | None = None  # an answer and its gold answer

    def add(self, texts: Sequence[str], missing: Sequence[bool]) -> None:
        """Count completions; `missing` says of each whether it gave no answer."""
        if texts and not self.completions:
            self.example = texts[0]
        self.completions += len(texts)
        self.answers += len(missing) - sum(missing)

    def over(self, rows: Iterable[Judged]) -> Iterator[Judged]:
        """Yield rows as they are, and count them."""
        for judged in rows:
            self.add(judged.sampled.completions, judged.clusters.missing)
            if judged.correct is not None:
                self._grade(judged)
            yield judged

    def _grade(self, judged: Judged) -> None:
        found = [answer for answer in judged.clusters.answers if answer is not None]
        self.graded += len(found)
        self.right += sum(judged.correct or [])
        if self.wrong is None and found and judged.sampled.gold is not None:
            self.wrong = found[0], gold_answer(judged.sampled.gold) or judged.sampled.gold

    def warning(self) -> str | None:
        """Return `sentence` with what to do, or that none of many answers is right; None where neither is so."""
        if said := self.sentence():
            return f"{said}. Choose another rule with --extract."
        if self.right or self.graded < MANY or self.wrong is None:
            return None
        return f"{none_is_right(self.graded, self.wrong)}."

    def sentence(self) -> str | None:
        """Return what is wrong, without a full stop; None where there is an answer, or nothing to find one in."""
        if self.answers or not self.completions:
            return None
        end = " ".join(self.example[-SHOWN:].split())
        shown = end if len(self.example) <= SHOWN else f"…{end}"
        return (
            f"none of {self.completions} completions holds an answer by the rule {self.rule!r}; the first one ends with "
            f"{shown!r}"
        )
