r"""Read a number in a base: 52_8, 52_{\text{eight}}, (52)_{(8)}, "52 in base 8", 1A3_{16}."""

from __future__ import annotations

import re

_WORDS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen",
)  # fmt: skip
_BASES = {word: number for number, word in enumerate(_WORDS, start=2)}
_TEXT = r"(?:\\(?:text|mbox|textrm|mathrm|mathtt|rm)\s?)"
_DIGITS = rf"\(?{_TEXT}?[{{(]?\s?(-?[0-9A-Fa-f]{{1,40}})\s?[}})]?\)?"
_OF = rf"{_TEXT}?\{{?\s?\(?(?:base[\s~-]?)?(\d{{1,2}}|{'|'.join(_WORDS)})\)?\s?\}}?"
_BELOW = re.compile(rf"{_DIGITS}\s?_\s?\{{?\s?{_OF}\s?\}}?")
_BESIDE = re.compile(
    rf"{_DIGITS}[\s~]{{0,3}},?\s?{_TEXT}?[{{(]?\s?(?:in\s)?(?:the\s)?base[\s~-]{{0,3}}\}}?\s?(\d{{1,2}}|{'|'.join(_WORDS)})\s?[}})]?"
)


def in_base(text: str) -> tuple[str, int] | None:
    """Return (digits, base) of a number that names its base from 2 to 16 and has no digit too large for it."""
    match = _BELOW.fullmatch(text) or _BESIDE.fullmatch(text)
    if match is None:
        return None
    written, name = match.groups()
    if not re.search(r"\d", written) and not (written.isupper() and len(written) > 1):
        return None  # a_{11} is a member of a sequence
    digits = written.upper()
    base = _BASES.get(name) or int(name)
    if not 2 <= base <= 16 or any(int(digit, 16) >= base for digit in digits.lstrip("-")):
        return None
    return digits, base
