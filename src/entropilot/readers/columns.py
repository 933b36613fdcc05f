"""Choose which columns of a log are its entropy, its performance and its steps, and say what each means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from entropilot.errors import UserError
from entropilot.readers.lines import listed, shown
from entropilot.readers.names import TRAIN, UNKNOWN, UNKNOWN_ENTROPY
from entropilot.readers.reader import Known, Reader

MEANT = {"entropy": "the policy's entropy", "performance": "performance"}
_NEEDED = 3  # points that a law needs
_ROLES = ("entropy", "performance")
_UNIT = re.compile(
    r"\s*(?:\((?:nats?|%|percent)\)|\[(?:nats?|%|percent)\]|%)\s*$", re.IGNORECASE
)  # of entropy or accuracy


@dataclass(frozen=True)
class Column:
    """Describe a column of a log and what it became.

    Attributes:
        role: `entropy`, `performance` or `step`.
        source: its name in the log; for a mean of several validation sets, `mean of a, b`.
        name: its name in the rows.
        asked: whether the user named it; else it is the framework's default.
        alternatives: other columns of the log that could take its place.
        unit: of its values.
        definition: what it measures, in the log's own terms.
        sources: the columns that it is the mean of; else `source` alone.
        reward: whether it is a training reward, which every rollout has.
    """

    role: str
    source: str
    name: str
    asked: bool
    alternatives: tuple[str, ...]
    unit: str
    definition: str
    sources: tuple[str, ...] = ()
    reward: bool = False

    def __str__(self) -> str:
        origin = "as asked" if self.asked else "by default"
        became = "" if self.name == self.source else f", in the rows {shown(self.name)}"
        others = f"; also there: {listed(self.alternatives)}" if self.alternatives else ""
        return f"{self.role}: {shown(self.source, 200)} ({origin}){became}{others}"


def option(role: str) -> str:
    """Return how a user names a column: on the command line, and in Python."""
    return f"--{role} ({role}=… in Python)"


class Catalogue:
    """Hold what all readers know of columns, seen from the log of one of them."""

    def __init__(self, readers: Sequence[Reader], framework: str | None = None) -> None:
        """Take the columns of all readers, and those that only the log's own reader knows."""
        self._readers, self._framework = readers, framework
        own = [entry for reader in readers if reader.name == framework for entry in reader.own_columns]
        self._entries = own + [entry for reader in readers for entry in reader.columns]
        self._known: dict[tuple[str, str], tuple[Known, bool] | None] = {}

    def known(self, column: str, role: str) -> tuple[Known, bool] | None:
        """Return what is known of a column in a role, and whether its name is exactly the framework's."""
        key = (column, role)
        if key not in self._known:
            if len(self._known) > 100_000:
                self._known.clear()
            entries = [entry for entry in self._entries if entry.role == role]
            exact = next((entry for entry in entries if entry.pattern.fullmatch(column)), None)
            plain = _UNIT.sub("", column.strip()).replace(
                " ", "_"
            )  # "Mean reward (%)", as tables for people have it
            loose = exact or next((entry for entry in entries if entry.loose.fullmatch(plain)), None)
            self._known[key] = (loose, exact is not None) if loose else None
        return self._known[key]

    def is_known(self, column: str) -> bool:
        """Return whether a column is known as entropy or performance."""
        return any(self.known(column, role) for role in _ROLES)

    @cached_property
    def axes(self) -> tuple[tuple[str, ...], ...]:
        """Return the columns of steps, the log's own framework first."""
        readers = sorted(self._readers, key=lambda reader: reader.name != self._framework)
        return tuple(dict.fromkeys(axis for reader in readers for axis in reader.steps))

    @cached_property
    def step_names(self) -> frozenset[str]:
        """Every column that may hold steps."""
        return frozenset(name for axis in self.axes for name in axis)

    def choose(
        self, role: str, asked: str | None, counts: Mapping[str, int], path: Path
    ) -> tuple[Column, list[str]]:
        """Return the column for a role, and sentences on what was passed over or averaged.

        Args:
            role: `entropy` or `performance`.
            asked: the column that the user named.
            counts: by column of the log, how many numbers it holds.
            path: the log, for messages.

        Raises:
            UserError: there is no such column, none is known, or several are equally good.
        """
        matches = {name: match for name in counts if (match := self.known(name, role))}
        if asked is not None:
            if asked not in counts:
                raise UserError(_missing(path, asked, list(counts)))
            return self._column(role, (asked,), True, matches, counts), []
        enough = {name: match for name, match in matches.items() if counts[name] >= _NEEDED} or matches
        if not enough:
            raise UserError(self._none(role, list(counts), path))
        rank = {name: (entry.tier, not exact) for name, (entry, exact) in enough.items()}
        best = [name for name in enough if rank[name] == min(rank.values())]
        notes = []
        if len(best) > 1:
            best, dropped = _sets(best, enough)
            if not best:
                raise UserError(
                    f"{path} has {len(dropped)} columns that could be {MEANT[role]}: {listed(sorted(dropped), 40)}; "
                    f"choose with {option(role)}."
                )
            if len(best) > 1:
                text = (
                    f"Performance is the mean of {len(best)} validation sets, each with the same weight, at the steps "
                    f"that have all of them: {listed(best, 40)}"
                )
                text += f" (not {listed(dropped, 40)})" if dropped else ""
                notes.append(f"{text}; choose one with {option(role)}.")
        short = [name for name, (entry, _) in matches.items() if entry.tier < enough[best[0]][0].tier]
        if short:
            notes.append(
                f"{listed(sorted(short))} has fewer than {_NEEDED} values, so {shown(best[0])} is used."
            )
        return self._column(role, tuple(best), False, matches, counts), notes

    def rewards(self, counts: Mapping[str, int], performance: Column) -> tuple[str, ...]:
        """Return the training rewards of a log by their names in the rows, the default first."""
        entries = [(name, match) for name in counts if (match := self.known(name, "performance"))]
        ranked = sorted((entry.tier, not exact, name) for name, (entry, exact) in entries if entry.reward)
        return tuple(performance.name if name == performance.source else name for _, _, name in ranked)

    def _column(
        self,
        role: str,
        sources: tuple[str, ...],
        asked: bool,
        matches: Mapping[str, tuple[Known, bool]],
        counts: Mapping[str, int],
    ) -> Column:
        like = [name for name in _nearest(role, list(counts)) if _like(name, role)]
        others = tuple(name for name in dict.fromkeys([*matches, *like]) if name not in sources)
        source = sources[0] if len(sources) == 1 else f"mean of {', '.join(sources)}"
        if sources[0] in matches:
            entry = matches[sources[0]][0]
            name = entry.name or source
            text = entry.definition if len(sources) == 1 else f"{source}; each: {entry.definition}"
            return Column(role, source, name, asked, others, entry.unit, text, sources, entry.reward)
        if role == "entropy":
            return Column(role, source, TRAIN, asked, others, "nats", UNKNOWN_ENTROPY, sources)
        return Column(role, source, source, asked, others, "as logged", UNKNOWN, sources)

    def _none(self, role: str, columns: list[str], path: Path) -> str:
        """Return the error of a log without a known column; what is no entropy is never offered as one."""
        like = [name for name in _nearest(role, columns) if _like(name, role)]
        if like:
            return (
                f"{path} has no column known to hold {MEANT[role]}; if one of {listed(like, 40)} does, name it with "
                f"{option(role)}."
            )
        if role == "performance":
            return (
                f"{path} has no column known to hold performance, neither a reward nor an accuracy; name one with "
                f"{option(role)}."
            )
        return (
            f"{path} has no entropy, and no other column can stand in for it; log it in the next run "
            f"({self._advice(columns)}), or name the column with {option(role)} if it has a name of its own."
        )

    def _advice(self, columns: list[str]) -> str:
        """Return how to log entropy: in the framework whose columns these are, or in every one."""
        own = [reader for reader in self._readers if reader.log_entropy and reader.name == self._framework]
        theirs = [
            reader
            for reader in self._readers
            if reader.log_entropy
            and any(entry.pattern.fullmatch(name) for name in columns for entry in reader.columns)
        ]
        chosen = own or theirs or [reader for reader in self._readers if reader.log_entropy]
        return "; ".join(dict.fromkeys(reader.log_entropy for reader in chosen))


def _sets(best: list[str], matches: Mapping[str, tuple[Known, bool]]) -> tuple[list[str], list[str]]:
    """Return the columns to average, one per validation set, and the rest; nothing to average where they differ in kind.

    Of one set with several numbers of samples, `mean@8` and `mean@32`, the one with most samples is taken.
    """
    entries = {id(matches[name][0]) for name in best}
    if len(entries) > 1:
        return [], best
    by_set: dict[str, list[str]] = {}
    for name in best:
        entry, exact = matches[name]
        match = (entry.pattern if exact else entry.loose).fullmatch(name)
        group = match["set"] if match and "set" in entry.pattern.groupindex else None
        if group is None:
            return [], best
        by_set.setdefault(group, []).append(name)
    chosen = [max(names, key=_samples) for names in by_set.values()]
    return sorted(chosen), sorted(set(best) - set(chosen))


def _samples(name: str) -> tuple[int, str]:
    digits = name.rpartition("@")[2]
    return (int(digits) if digits.isdecimal() else 0, name)


_WORDS = {
    "entropy": ("entropy",),
    "performance": ("acc", "reward", "score", "pass@", "pass1", "maj@", "best@"),
}
_NEVER = ("std", "zero", "/max", "/min", "worst", "profiling/")


def _like(name: str, role: str) -> bool:
    name = name.lower()
    return any(word in name for word in _WORDS[role]) and not any(word in name for word in _NEVER)


def _nearest(role: str, columns: Sequence[str]) -> list[str]:
    return sorted(columns, key=lambda name: (not _like(name, role), name))


def _missing(path: Path, asked: str, columns: list[str]) -> str:
    close = difflib.get_close_matches(asked[:200], columns[:2000], n=3)
    hint = f"did you mean {listed(close)}?" if close else f"it has {listed(sorted(columns), 40)}."
    return f"{path} has no column {shown(asked)} that holds a number; {hint}"
