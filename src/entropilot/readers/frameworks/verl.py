"""verl's logs: the `file` logger's JSON Lines, and what its `console` logger prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from entropilot.readers.formats.alike import DIGITS, Alike
from entropilot.readers.formats.notebooks import open_text
from entropilot.readers.gather import FOREIGN, NO_NUMBER, TORN, Gathered
from entropilot.readers.lines import WANDB_CUT, is_cut, json_rows, pieces, refuse_nul
from entropilot.readers.names import ACCURACY, HELD_OUT, REWARD, TRAIN
from entropilot.readers.peek import Peek
from entropilot.readers.reader import Log, Reader, Source, known

_HEAD = re.compile(rb"step:\d{1,15} - ")
_ANSI = re.compile(rb"\x1b\[[0-9;]{0,20}[A-Za-z]")
_NUMPY = re.compile(rb"(?:np|numpy)\.\w{1,20}\(([^()\s]{1,64})\)")  # numpy 2 prints np.float64(0.1)
_WORDS = frozenset({b"True", b"False", b"None", b"np.True_", b"np.False_"})
_STEP_KEY = re.compile(rb"(?:^|[^a-zA-Z0-9_/.-])step$")
_END = rb"(?:\x1b\[[0-9;]{0,20}[A-Za-z])*+(?=[\r\n])"
_LONG_LINE = 1 << 17
CUT = "values at the end of a line that was cut"
_BEFORE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.-")


def _is_row(row: dict[str, Any]) -> bool:
    """Whether a JSON object has the form of verl's file logger."""
    return isinstance(row.get("data"), dict) and "step" in row


def read_file_logger(path: Path, gathered: Gathered) -> None:
    """Gather `{"step": …, "data": {…}}`, which `trainer.logger=[file]` writes; null stands for NaN and ±inf."""
    for row in json_rows(path):
        if row is None:
            gathered.skipped[TORN] += 1
        elif not _is_row(row):
            gathered.skipped[FOREIGN] += 1
        else:
            gathered.take(row["data"] | {"step": row["step"]}, null_is_nan=True)


def read_console(path: Path, gathered: Gathered) -> None:
    """Gather the lines `step:N - key:value - …` of a console, whatever else was printed between and before them.

    A number at the very end of a file whose last line is not ended may lack digits, and is left out as torn; so is the
    last number of a line that has the length at which a collector cuts, where no line of metrics is longer.

    Raises:
        UserError: the file holds NUL bytes, so it is no text.
    """
    console = _Console(gathered)
    longest, cut = (
        0,
        list[tuple[dict[str, float], str]](),
    )  # of the longest lines: row, and the column at its end
    with open_text(path) as file:
        for text, whole, length, row in console.read(file):
            gathered.add(row)
            if length < longest:
                continue
            if length > longest:
                longest, cut = length, []
            if whole and is_cut(length, text):
                last = text.rpartition(b" - ")[2].rpartition(b":")[0]
                cut.append((row, last.decode("utf-8", "replace").strip()))
    if len(cut) > 1 or longest in WANDB_CUT:
        for row, name in cut:
            row.pop(name, None)
        gathered.skipped[CUT] += len(cut)
        gathered.notes.append(
            f"{len(cut)} lines of metrics end at {longest:,} bytes, the longest there is, as W&B's output.log cuts them: "
            "the last value of each is left out, and what came after it is lost, often the validation; read the run's "
            ".wandb file or verl's file logger instead."
        )


def _has_metrics(peek: Peek) -> bool:
    """Return whether a text holds a line of metrics, looking no further than the peek may."""
    with open_text(peek.path) as file:
        return any(True for _ in _Console(Gathered(lambda column: True)).read(file, peek.deep))


def _next_head(piece: bytes, start: int) -> int:
    """Return where the next `step:N - ` begins that is no part of a longer word, such as `timing_s/step:`."""
    at = piece.find(b"step:", start)
    while at >= 0:
        if _HEAD.match(piece, at):
            if at == 0 or piece[at - 1] not in _BEFORE:
                return at
            escape = piece.rfind(b"\x1b", max(0, at - 24), at)
            if escape >= 0 and _ANSI.fullmatch(piece, escape, at):
                return at
        at = piece.find(b"step:", at + 5)
    return -1


def _begin(piece: bytes, at: int) -> int:
    """Return where the line begins that a place is on."""
    return piece.rfind(b"\n", max(0, at - _LONG_LINE), at) + 1


class _Line(NamedTuple):
    """A line of metrics.

    Attributes:
        text: from `step:` on.
        whole: whether it came to its end.
        length: of all that stands on the line, in bytes.
        row: its numbers by column.
    """

    text: bytes
    whole: bool
    length: int
    row: dict[str, float]


class _Console:
    """Reads lines of metrics. Those of one run have the same keys over and over, which is what makes it fast."""

    def __init__(self, gathered: Gathered) -> None:
        self.gathered = gathered
        self._alike = Alike()
        self._thinned = False

    def read(self, file: BinaryIO, limit: int | None = None) -> Iterator[_Line]:
        """Yield the lines that hold a number beside their step, looking no further than `limit` bytes.

        Ray and progress bars write before the metrics on the same line, and a carriage return ends a line as well.
        """
        for piece, ended in pieces(file, b"\n\r"):
            if limit is not None and file.tell() > limit:
                return
            if not piece:  # a line beyond all measure
                self.gathered.skipped[TORN] += 1
                continue
            refuse_nul(piece)
            yield from self._piece(piece, ended)

    def _piece(self, piece: bytes, ended: bool) -> Iterator[_Line]:
        """Yield the lines of metrics of some lines."""
        at = _next_head(piece, 0)
        while at >= 0:
            if self._thinned is not self.gathered.thinned:
                self._thinned = True
                self._alike.forget()
            row, end = self._alike.match(piece, at) or (None, at)
            newline = end + (piece[end : end + 1] == b"\r")
            if (
                row is not None and piece[newline : newline + 1] == b"\n"
            ):  # the keys of an earlier line, and its end
                yield _Line(piece[at:end], True, newline - _begin(piece, at), row)
                at = _next_head(piece, newline)
                continue
            after = _next_head(piece, at + 5)
            stop = len(piece) if after < 0 else after  # within a line, it is torn there
            newline = piece.find(b"\n", at, stop)
            end = stop if newline < 0 else newline
            length = end - _begin(piece, at) if newline >= 0 else 0
            turn = piece.find(b"\r", at, end)
            end = end if turn < 0 else turn
            whole = end < stop or (end == len(piece) and ended)
            row = self._one_by_one(piece[at:end], whole)
            if len(row) > 1:  # a step alone says nothing
                yield _Line(piece[at:end], whole, length, row)
            at = after

    def _one_by_one(self, text: bytes, whole: bool) -> dict[str, float]:
        """Return the row of any line, from `step:` on; a value that is not whole, at its end, is left out."""
        if b"\x1b" in text:
            text = _ANSI.sub(b"", text)
        if not whole:
            text = text[: max(0, text.rfind(b" - "))]
            self.gathered.skipped[TORN] += 1
        row: dict[str, float] = {}
        learned: list[tuple[bytes, str | None, bytes]] | None = []
        lead = b""
        parts = text.split(b" - ")
        for at, part in enumerate(parts):
            key, _, value = part.rpartition(b":")
            number = _number(value)
            if number is None:
                if value.strip() not in _WORDS:
                    self.gathered.skipped[NO_NUMBER] += 1
                learned = None
                continue
            self.gathered.put(row, key, number)
            before, after = (value[: value.find(b"(") + 1], b")") if value.startswith(b"np.") else (b"", b"")
            if not key or b":" in key or value[len(before) : len(value) - len(after)].strip(DIGITS):
                learned = None
            if at and _STEP_KEY.search(key):  # with a whole number it looks like the beginning of a line
                learned = None
            if learned is not None:
                closing = after or (b" " if at < len(parts) - 1 else b" \r\n\x1b")
                learned.append((lead + key + b":" + before, self.gathered.name(key), closing))
                lead = after + b" - "
        if len(row) > 1 and learned and (self._thinned or all(name for _, name, _ in learned)):
            self._alike.learn(learned, re.escape(lead.removesuffix(b" - ")) + _END)
        return row


def _number(value: bytes) -> float | None:
    """Return a number; also of `np.float64(0.1)`, and of one that Ray's `[repeated 2x across cluster]` follows."""
    value = value.strip()
    head, _, tail = value.partition(b" ")
    if tail.lstrip().startswith(b"[repeated"):
        value = head
    wrapped = _NUMPY.fullmatch(value)
    try:
        return float(wrapped[1] if wrapped else value)
    except ValueError:
        return None


def _read(log: Log, gathered: Gathered, run: str | None) -> Source:
    (read_file_logger if log.form == "file logger" else read_console)(log.path, gathered)
    return Source([log.path], log.path.stem)


def _sniff(peek: Peek) -> str | None:
    if peek.kind in ("jsonl", "document"):
        rows = sum(map(_is_row, peek.rows))
        if rows and 2 * rows >= len(peek.rows):
            return "file logger"
    # A console may begin with a printed configuration, which looks like JSON.
    return "console" if peek.kind in ("text", "jsonl") and _has_metrics(peek) else None


_ENTROPY = (
    "verl's `actor/entropy`: full vocabulary, at the rollout's temperature, over the response tokens of a rollout, "
    "before its first update (during it in bypass mode), by actor.loss_agg_mode (token mean by default); "
    "not the paper's policy entropy, which is at T = 1 and a mean over sequences"
)
_LOSS = (
    "verl's `actor/entropy_loss`: entropy of the response tokens during the update, by actor.loss_agg_mode"
)
_VALIDATED = "over N samples per problem of one data source, after the step's update"

READER = Reader(
    "verl",
    _read,
    sniff=_sniff,
    steps=(("step",),),
    columns=(
        *known("entropy", TRAIN, "nats", (2, "actor/entropy", _ENTROPY), (3, "actor/entropy_loss", _LOSS)),
        *known(
            "performance",
            ACCURACY,
            "share",
            (1, r"val-core/(?P<set>.+)/acc/mean@\d{1,6}", f"verl's validation: mean accuracy {_VALIDATED}"),
        ),
        *known(
            "performance",
            HELD_OUT,
            "reward",
            (1, r"val-core/(?P<set>.+)/reward/mean@\d{1,6}", f"verl's validation: mean reward {_VALIDATED}"),
            (1, "val/test_score/(?P<set>.+)", f"verl's validation: mean reward {_VALIDATED}"),
        ),
        *known(
            "performance",
            REWARD,
            "reward",
            (
                3,
                "critic/score/mean",
                "verl's `critic/score/mean`: mean score over the rollout, before any KL penalty",
            ),
            (
                4,
                "critic/rewards/mean",
                "verl's `critic/rewards/mean`: mean reward over the rollout, after any KL penalty",
            ),
            reward=True,
        ),
    ),
    log_entropy="verl logs `actor/entropy` with actor_rollout_ref.actor.calculate_entropy=True",
)
