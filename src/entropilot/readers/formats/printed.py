"""Dicts printed on a console: Python's or JSON, with bars, prefixes and other text around them, also wrapped.

Nothing is evaluated: a small parser reads literals and gives up on anything else.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from entropilot.readers.formats.alike import DIGITS, Alike
from entropilot.readers.gather import INF, TORN, Gathered, number_of
from entropilot.readers.lines import pieces, refuse_nul

_HEAD = re.compile(rb"\{\s{0,200}['\"]")
_ANSI = re.compile(rb"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_WIDEST = 1 << 16  # bytes of one dict
_BEFORE = 400  # bytes before a dict that may tell its step
_DEEPEST = 4  # dicts within dicts
_NO_TEXT = b" \t\r\n\v\f_"  # `float` passes over them, but text that holds one is no number
_BLANK = re.compile(rb"\s*+")
# A mark, a quoted text, an object as `<class 'float'>`, or a word.
_TOKEN = re.compile(
    rb"\s*+(?:([{}\[\](),:])|('(?:[^'\\\n]|\\.){0,4096}+'|\"(?:[^\"\\\n]|\\.){0,4096}+\")"
    rb"|(<[^<>\n]{0,400}>)|([^\s{}\[\](),:'\"<]{1,200}))"
)
_NAME = re.compile(rb"[A-Za-z_][\w.]{0,60}")
_KEYWORD = re.compile(rb"\s*+[A-Za-z_]\w{0,60}=(?!=)")


class Torn(Exception):
    """Raised where the text is no literal, or ends within one.

    Attributes:
        at: where; the end of what was looked at where the text ends too early.
        whole: the pairs before.
    """

    def __init__(self, at: int, whole: dict[str, Any] | None = None) -> None:
        self.at, self.whole = at, whole or {}


class _Parser:
    """Parses one dict of literals within a text; looks no further than `end`."""

    def __init__(self, text: bytes, end: int) -> None:
        self.text, self.end = text, end

    def next(self, at: int) -> re.Match[bytes]:
        match = _TOKEN.match(self.text, at, self.end)
        if match is None:
            blank = _BLANK.match(self.text, at, self.end)
            start = blank.end() if blank else at
            early = start >= self.end or self.text[start : start + 1] in (b"'", b'"', b"<")
            raise Torn(self.end if early else start)
        return match

    def dict(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        """Return the dict whose brace was before `at`, and where it ends; a key that is no text is passed over."""
        whole: dict[str, Any] = {}
        try:
            if depth > _DEEPEST:
                raise Torn(at)
            while True:
                token = self.next(at)
                if token[1] == b"}":
                    return whole, token.end()
                key = _string(token[2]) if token[2] else None
                if token[1] is not None and token[1] != b"(":  # no key of a dict
                    raise Torn(token.start(1))
                end = token.end() if key is not None else self.value(at, depth)[1]
                value, at = self.value(self.expect(b":", end).end(), depth)
                comma = self.expect(b",}", at)
                if key is not None:
                    whole[key] = value
                at = comma.end()
                if comma[1] == b"}":
                    return whole, at
        except Torn as torn:
            raise Torn(torn.at, whole) from None

    def expect(self, marks: bytes, at: int) -> re.Match[bytes]:
        token = self.next(at)
        if token[1] is None or token[1] not in marks:
            raise Torn(token.start(token.lastindex or 0))
        return token

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        token = self.next(at)
        if token[2]:
            return _string(token[2]), token.end()
        if token[1] == b"{":
            return self.dict(token.end(), depth + 1)
        if token[1] in (b"[", b"("):
            return None, self.sequence(token.end(), depth + 1)[1]
        if token[3]:
            return None, token.end()
        if token[1]:
            raise Torn(token.start(1))
        word = token[4]
        if _NAME.fullmatch(word) and self.text[token.end() : token.end() + 1] == b"(":  # np.float64(0.5)
            first, end = self.sequence(token.end() + 1, depth + 1)
            return (first if isinstance(first, float) else None), end
        try:
            return float(word), token.end()
        except ValueError:
            if _NAME.fullmatch(word):  # None, True
                return None, token.end()
            raise Torn(self.end if token.end() >= self.end else token.start(4)) from None

    def sequence(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the first value in a list, a tuple or a call, and where its bracket closes."""
        if depth > _DEEPEST:
            raise Torn(at)
        first, count = None, 0
        while True:
            token = self.next(at)
            if token[1] in (b"]", b")"):
                return first, token.end()
            keyword = _KEYWORD.match(self.text, at, self.end)  # device='cuda:0'
            value, at = self.value(keyword.end() if keyword else at, depth)
            first, count = (value if not count else first), count + 1
            token = self.expect(b",])", at)
            at = token.end()
            if token[1] != b",":
                return first, at


def parse(text: bytes, at: int = 0, end: int | None = None) -> tuple[dict[str, Any], int]:
    """Return the dict that begins at a place of a text, and where it ends.

    Values are numbers, text or dicts; anything else becomes None.

    Raises:
        Torn: it is no dict of literals, or not whole.
    """
    return _Parser(text, len(text) if end is None else end).dict(at + 1, 0)


def _string(quoted: bytes) -> str:
    text = quoted[1:-1].decode("utf-8", "replace")
    return re.sub(r"\\(.)", r"\1", text) if "\\" in text else text


class Printed:
    """Reads printed dicts; those of one run have the same keys over and over, which is what makes it fast."""

    def __init__(self, gathered: Gathered) -> None:
        self.gathered = gathered
        self._alike = Alike()
        self._thinned = False
        self._joined, self._apart = 0, 0  # lines joined with those after them, and in vain

    def read(self, file: BinaryIO, deep: int | None = None) -> Iterator[tuple[bytes, dict[str, float]]]:
        """Yield the row of every dict that holds a number, and the end of the text before it.

        A dict that is torn gives what was whole before its last value, and is counted.

        Raises:
            UserError: the file holds NUL bytes.
        """
        rest = b""
        for piece, _ in pieces(file):
            if deep is not None and file.tell() > deep:
                return
            if not piece:  # a line beyond all measure
                self.gathered.skipped[TORN] += 1
                yield from self._piece(rest, True)
                rest = b""
                continue
            refuse_nul(piece)
            rest = yield from self._piece(rest + piece, False)
        if rest:
            yield from self._piece(rest, True)

    def _piece(self, text: bytes, last: bool) -> Generator[tuple[bytes, dict[str, float]], None, bytes]:
        """Yield the rows of some lines; return the end of the text where a dict goes on in the next."""
        done, at = 0, _next_dict(text, 0)
        while at >= 0:
            if self._thinned is not self.gathered.thinned:
                self._thinned = True
                self._alike.forget()
            row, end = self._alike.match(text, at) or (None, at)
            if row is None:
                if not last and len(text) - at < _WIDEST:
                    return text[max(done, at - _BEFORE) :]
                row, end = self._any(text, at)
            if row:
                yield text[max(done, at - _BEFORE) : at], row
                done = end
            at = _next_dict(text, end)
        return b""

    def _any(self, text: bytes, at: int) -> tuple[dict[str, float], int]:
        """Return the row of any dict, on one line or wrapped, and where to go on."""
        newline = text.find(b"\n", at)
        stop = min(len(text) if newline < 0 else newline, at + _WIDEST)
        if text.find(b"\x1b", at, stop) >= 0:
            return self._coloured(text[at:stop]), stop
        try:
            cells, end = parse(text, at, stop)
        except Torn as torn:
            if torn.at >= stop == newline and (self._apart < 200 or self._joined > self._apart):
                joined = text[at : at + _WIDEST].replace(b"\r\n", b"\n")
                try:
                    cells, length = parse(joined.replace(b"\n", b""))
                    self._joined += 1
                    return self._row(cells), at + _with_ends(text[at : at + 2 * _WIDEST], length)
                except Torn:
                    self._apart += 1
            row = self._row(torn.whole)
            self.gathered.skipped[TORN] += bool(row)
            return row, at + 1
        self._learn(text[at:end], cells)
        return self._row(cells), end

    def _coloured(self, line: bytes) -> dict[str, float]:
        """Return the row of a dict on a line with terminal escapes in or after it."""
        try:
            return self._row(parse(_ANSI.sub(b"", line))[0])
        except Torn as torn:
            row = self._row(torn.whole)
            self.gathered.skipped[TORN] += bool(row)
            return row

    def _row(self, cells: dict[str, Any]) -> dict[str, float]:
        row: dict[str, float] = {}
        self.gathered.put_all(row, cells)
        return row

    def _learn(self, body: bytes, cells: dict[str, Any]) -> None:
        """Remember the keys of a dict, where the fast way reads it as the parser does."""
        parts = body[1:-1].replace(b", ", b": ").split(b": ")
        if len(parts) != 2 * len(cells):
            return
        learned: list[tuple[bytes, str | None, bytes]] = []
        lead = b"{"
        for raw, value, key in zip(parts[::2], parts[1::2], cells, strict=True):
            number = number_of(cells[key], key)
            plain = raw[:1] == raw[-1:] and raw[1:-1].decode("utf-8", "replace") == key
            if not plain or number is None or not -INF < number < INF:
                return
            before, after = b"", b""
            if value[:1] in (b"'", b'"'):
                before = after = value[:1]
            elif value.endswith(b")"):
                before, after = value[: value.find(b"(") + 1], b")"
            if value[len(before) : len(value) - len(after)].strip(DIGITS):
                return
            closing = (after + _NO_TEXT) if after else b"," if len(learned) < len(cells) - 1 else b",}"
            learned.append((lead + raw + b": " + before, self.gathered.name(key), closing))
            lead = after + b", "
        if self._thinned or all(name for _, name, _ in learned):
            self._alike.learn(learned, re.escape(lead.removesuffix(b", ") + b"}"))


def _next_dict(text: bytes, start: int) -> int:
    """Return where a brace and a quote begin, as a dict does; -1 where none does."""
    at = text.find(b"{", start)
    while at >= 0 and not _HEAD.match(text, at):
        at = text.find(b"{", at + 1)
    return at


def _with_ends(text: bytes, length: int) -> int:
    """Return how many bytes of a text hold `length` bytes beside the ends of lines."""
    at = 0
    for line in text.split(b"\n"):
        here = len(line.removesuffix(b"\r"))
        if length <= here:
            return at + length
        length -= here
        at += len(line) + 1
    return at


def peek(file: BinaryIO, deep: int | None) -> Iterator[tuple[bytes, dict[str, float]]]:
    """Yield the printed dicts of a file without keeping them, looking no further than `deep` bytes."""
    return Printed(Gathered(lambda column: True)).read(file, deep)
