"""Find the tokens of a completion that overlap given characters of its text, for any tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from os.path import commonprefix

Span = tuple[int, int]
LONGEST = 8  # tokens that one character is spread over at most; four bytes, with room


def tokens_of(ids: Sequence[int], decode: Callable[[list[int]], str], spans: Sequence[Span]) -> list[int]:
    """Return the places, in order, of all tokens that overlap a character of the spans.

    A character whose bytes are spread over several tokens is overlapped by each of them. Only `decode` is asked, a few
    times per span: where the text of the first k tokens ends says which characters the next one begins with.

    Args:
        ids: the tokens.
        decode: from tokens to text; a tokenizer's, with special tokens skipped.
        spans: characters [start, end) of `decode(ids)`.
    """
    ids = list(ids)
    text = decode(ids)

    @cache
    def common(count: int) -> tuple[int, bool]:
        """Return how much of the text the first `count` tokens spell, and whether a character is begun beyond that."""
        part = decode(ids[:count])
        whole = len(commonprefix([part, text]))
        return whole, len(part) > whole

    @cache
    def reach(count: int) -> tuple[int, int]:
        """Return where the whole characters of the first `count` tokens end, and where the last touched one does."""
        whole, begun = common(count)
        if begun:
            # Some decoders spell a whole run of bytes as unknown while its last character is not complete.
            before = next((k for k in range(count - 1, max(0, count - LONGEST), -1) if not common(k)[1]), 0)
            whole = max(whole, common(before)[0])
        return whole, min(len(text), whole + begun)

    places: set[int] = set()
    for start, end in spans:
        if start >= end:
            continue
        first = _first(len(ids), lambda place, start=start: reach(place + 1)[1] > start)
        last = _first(len(ids), lambda place, end=end: reach(place)[0] >= end)
        places |= {place for place in range(first, last) if reach(place)[0] < reach(place + 1)[1]}
    return sorted(places)


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """Return the first place from which on a condition holds, `count` where it never does."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
