"""Find the letter of a multiple-choice answer."""

from __future__ import annotations

import re

from entropilot.answers.extraction.phrases import mentions

_LABEL = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf|rm)\b\s?\{?|[${}*_`]")
_IN_BOX = re.compile(
    r"\s*(?:option|choice|answer)?[\s:]*\(?\s?([A-Pa-p])\s?"
    r"(?:\)|[.:](?!\d)|$|(?=\s[^\s=<>+*/^-]))",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\(?([A-P])\)?(?:\s*(?:,|and|&)\s*\(?([A-P])\)?)+\s*")
_RUN = re.compile(r"[A-P]{2,5}")
_ANSWER = re.compile(
    r"(?:\b(?:answer|ans)\b(?:\s+(?:is|are|would be|should be|must be))?|\b(?:option|choice)\b|"
    r"答案(?:是|为|选)?|故选)[\s:：*_(\[]{0,8}",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    r"(?<![A-Za-z])\(?([A-P])\)?[*_]{0,2}\s+(?:is|must be|would be)\s+(?:the\s+)?(?:correct|right|best|answer)"
)
_ANSWER_WORDS = (
    "ans",
    "option",
    "choice",
    "答案",
    "故选",
)  # one of them is in every text in which `_ANSWER` matches
_CORRECT_WORDS = ("correct", "right", "best", "answer")
_LEADING = re.compile(r"[\s*_$]{0,8}\(?([A-P])\s?[.):](?=\s|$|\*)")
_LETTER = re.compile(r"\(([A-Pa-p])\)|(?<![A-Za-z\\'’])([A-P])(?![A-Za-z'’]|-[a-z])")
_NOT_BEFORE = re.compile(
    r"(?:\bnot|n['’]t(?:\s+be)?|\bnor|\bneither|\brather than|\binstead of)\s+"
    r"(?:option\s+|the\s+|\w+\s+or\s+)?\(?$",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n")
_REACH = 400


def letter_of(text: str) -> str | None:
    r"""Return the letter that a box or tag holds: C of "(C)", "\text{(C) } 12" and "c", "A,C" of "A and C".

    None where it holds mathematics.
    """
    if "\\" in _LABEL.sub(" ", text).replace("\\ ", " ") and not re.match(
        r"\s*\\(?:text|mathrm|mathbf|bf|rm)", text
    ):
        return None
    plain = _LABEL.sub(" ", text).replace("\\ ", " ").strip()
    if _SEVERAL.fullmatch(plain):
        return ",".join(re.findall(r"[A-P]", plain))
    if _RUN.fullmatch(plain) and list(plain) == sorted(set(plain)):
        return plain
    match = _IN_BOX.match(plain)
    return match.group(1).upper() if match else None


def letters_after(text: str) -> str | None:
    """Return the letter of "answer is (B)", of "B is correct", of "B. …", else the last that is not denied."""
    bare = _LABEL.sub(" ", text).strip() if len(text) <= 40 else text
    if re.fullmatch(r"\(?[A-Pa-p]\)?[.:]?", bare):
        return bare.strip("().: ").upper()
    announced = _ANSWER.finditer(text) if mentions(text, _ANSWER_WORDS) else ()
    for end in reversed([match.end() for match in announced][-200:]):
        letter = _in_sentence(text[end : end + _REACH])
        if letter is not None:
            return letter
    correct = None
    for correct in _CORRECT.finditer(text) if mentions(text, _CORRECT_WORDS) else ():  # noqa: B007 - the last one is wanted
        pass
    later = _last_affirmed(text[correct.end() :]) if correct else None
    if correct:
        return later or correct.group(1)
    leading = _LEADING.match(text)
    return leading.group(1) if leading else _last_affirmed(text)


def _in_sentence(text: str) -> str | None:
    direct = re.match(r"[\s:：*_$({\\]{0,12}(?:text\w*\{|mathrm\{)?\(?([A-P])(?![A-Za-z'’]|\s[a-z])", text)
    if direct:
        return direct.group(1)
    small = re.match(r"[\s*_$(]{0,12}([a-p])[)*_$.]{0,8}[ \t]{0,8}(?:\n|$)", text)  # alone on its line
    if small:
        return small.group(1).upper()
    end = _SENTENCE.search(text)
    return _last_affirmed(text[: end.start()] if end else text)


def _last_affirmed(text: str) -> str | None:
    for match in reversed(list(_LETTER.finditer(text))):
        bracketed, plain = match.groups()
        after = text[match.end() : match.end() + 2]
        # "I think" and "A car" hold no letter.
        if plain and (plain == "I" or (plain == "A" and re.match(r" [a-z]", after))):
            continue
        if not _NOT_BEFORE.search(text[max(0, match.start() - 24) : match.start()]):
            return (bracketed or plain).upper()
    return None
