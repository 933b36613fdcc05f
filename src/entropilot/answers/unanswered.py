"""Notice where no completion holds an answer: a wrong rule of extraction looks like a model that knows nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from entropilot.answers.judged_rows import Judged

SHOWN = 120  # characters of the example


class Unanswered:
    """Count completions and their answers, and keep the first completion as an example.

    Args:
        rule: of extraction, as the user names it.
    """

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.completions = self.answers = 0
        self.example = ""

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
            yield judged

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
