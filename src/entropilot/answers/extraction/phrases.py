"""Find an answer in running text: what follows "the answer is" and its like, without what wraps it."""

from __future__ import annotations

import re

REACH = 400  # characters: how far after "the answer is" an answer may go on

_QUALIFIERS = (
    r"(?:[ \t]+(?:therefore|thus|then|hence|simply|just|only|approximately|about|roughly|exactly|equal to|given by|"
    r"indeed|clearly|now|actually)\b,?){0,3}"
)
_IS = (
    r"(?:(?:is|are|equals|(?:would|should|must|will) be|comes out to be|comes to|becomes|lies at|"
    r"turns out to be|works out (?:to be|to|as)|has to be|ends up being|amounts to|evaluates to)(?![A-Za-z'’])"
    + _QUALIFIERS
    + r"[ \t]*[:=]?|[:：=]|[-–—](?=[ \t]))"
)
_OF = r"(?:[ \t]*\([^()\n]{0,40}\))?(?:[ \t]+(?:to|of|for|in)\b[^.:\n=]{0,60}?)?[*_]{0,4}[ \t]{0,4}"
_STRONG = re.compile(
    r"(?:\b(?:answer|answers(?=[^\n.]{0,12}\d)|ans|final[ \t]+(?:result|solution|value))\b" + _OF + _IS + r"|"
    r"^[ \t#*_]{0,12}(?:the[ \t]+)?(?:final[ \t]+)?(?:answer|result)[*_: \t]{0,8}$|"
    r"(?:最终)?答案(?:就|应)?(?:是|为|選|选|】)?[:：]?|故选[:：]?|答え?(?:は|[:：])|"
    r"\b(?:la[ \t]+)?réponse(?:[ \t]+(?:finale|correcte))?[ \t]*(?:est|:)|"
    r"\b(?:antwort|lösung)[ \t]*(?:ist|lautet|:)|"
    r"\b(?:la[ \t]+)?respuesta(?:[ \t]+(?:final|correcta))?[ \t]*(?:es|:)|"
    r"\bla[ \t]+risposta(?:[ \t]+finale)?[ \t]+è|\ba[ \t]+resposta(?:[ \t]+final)?[ \t]+é|\bответ[ \t]*[:—-])",
    re.IGNORECASE | re.MULTILINE,
)
_VALUE_AHEAD = r"(?=[ \t]{0,4}(?:-?[$\\]|-?\d|[A-Za-z][ \t]?[=<>(]))"
_WEAK = re.compile(
    r"(?:\b(?:result|solution)s?\b" + _OF + _IS + r"|^[ \t]{0,8}A:|"
    r"\b(?:therefore|thus|hence)\b,?\s{0,4}"
    + _VALUE_AHEAD
    + r"|\bit(?:['’]s|[ \t]+is)\b"
    + _VALUE_AHEAD
    + r")",
    re.IGNORECASE | re.MULTILINE,
)
# One of these is in every text in which the pattern matches: looking for them is a hundred times as quick.
_STRONG_WORDS = (
    "ans", "final", "result", "答", "故选", "réponse", "antwort", "lösung", "respuesta", "risposta", "resposta", "ответ",
)  # fmt: skip
_WEAK_WORDS = ("result", "solution", "therefore", "thus", "hence", "it", "a:")
_PLACEHOLDER = re.compile(
    r"[\s<\[({$*_]*(?:(?:the|your|insert|write|final|put|an?)\s+){0,4}(?:(?:numerical|numeric|final)\s+)?"
    r"answer(?:\s+(?:here|goes here))?[\s>\])}$*_.]*"
    r"|[\s.…?_*<>$\"'“”‘’`]{1,40}|\\[cl]?dots|xxx|\?+|answer|value|number|<[^<>\d]{1,40}>[\"'”’]?"
    r"|\(?[A-Z]\)?[\"'”’]|(?:the )?answer to (?:the|this) (?:problem|question)|\$answer\b[^\d]{0,80}",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"(?:not|never|unclear|unknown|wrong|incorrect|n['’]t)\b", re.IGNORECASE)
_HTML = re.compile(r"</?(?:b|i|u|em|strong|code|span|p|center|br|sub|sup|div|mark)(?:\s[^<>]{0,80})?/?>")
_CUT = re.compile(
    r",\s+(?!(?:and|or|sin|cos|tan|log|ln)\b)(?=[A-Za-z]{2,}\b(?!\s?[=(]))|"
    r"\s+\((?!(?:mod|base|in base)\b)(?=[A-Za-z]{2,}[ .,])|"  # "5 (since 2 + 3 = 5)"
    r"\s+(?:because|since|so that|as required|which)\b|\s+\(?(?:see|as shown)\b"
)
_COPULA = re.compile(r"\s{0,3}(?:です|である|となります|になります)[。．]?$")  # Japanese: "is", at the end
_LEADING = re.compile(
    r"[\s:：=*_`>]{0,40}(?:(?:as follows|the following|(?:given |shown )?below)[:.]\s{0,40})?"
)
_ABOUT = re.compile(r"(?:approximately|about|roughly|exactly|equal to|simply|just)\s+", re.IGNORECASE)
_SUBJECT = re.compile(r"\b(?:is|are|equals|be|was)\s+(?=\S)|[:：]\s+")
_NUMBER = re.compile(
    r"(?=[-$\d])-?(?:\$\s?)?(?<![\d.,A-Za-z_])\d{1,40}(?:,\d{3})*(?:\.\d{1,40})?(?:/\d{1,20})?%?(?![\d])"
)
_STARTS_WITH_A_WORD = re.compile(r"[A-Za-z]{2,}(?:[ \t'’-]|$)")
_ALONE = re.compile(r"[-+$\\(\[{\d][^\n]{0,99}|[A-Ea-e]|[a-z]\s?=[^\n]{1,80}")
_PROSE = re.compile(r"[A-Za-z]{2,}[ \t]+[A-Za-z]{2,}|[.!?;]\s+\S")


def placeholder(text: str) -> bool:
    """Return whether a text only stands where an answer should: "your answer", "...", blanks."""
    return len(text) <= 100 and bool(_PLACEHOLDER.fullmatch(text))


def after_phrase(text: str) -> str | None:
    """Return what follows the last phrase that announces an answer and has one behind it."""
    return _after(text, _STRONG, _STRONG_WORDS)


def after_weak_phrase(text: str) -> str | None:
    """Return what follows "Therefore", "Result:", "It is" and their like."""
    return _after(text, _WEAK, _WEAK_WORDS)


def mentions(text: str, words: tuple[str, ...]) -> bool:
    """Return whether one of some words in lower case is in a text, in any case."""
    lower = text.lower()
    return any(word in lower for word in words)


def _after(text: str, anchors: re.Pattern[str], words: tuple[str, ...]) -> str | None:
    if not mentions(text, words):
        return None
    # From the last backwards: an anchor with nothing behind it, or a denial, is none.
    for end in reversed([anchor.end() for anchor in anchors.finditer(text)][-200:]):
        answer = _behind(text[end : end + REACH])
        if answer is not None:
            return answer
    return None


def _behind(rest: str) -> str | None:
    rest = rest[_LEADING.match(rest).end() :]  # type: ignore[union-attr]
    for opening, closing in (("\\[", "\\]"), ("$$", "$$")):
        if rest.startswith(opening):
            inner = rest[2:].partition(closing)[0]
            rest = inner.strip().replace("\n", " ")
    answer = tidy(_sentence(rest))
    if not answer or _DENIAL.match(answer) or placeholder(answer):
        return None
    if _STARTS_WITH_A_WORD.match(answer):
        answer = _value_in(answer)
    return answer or None


def _value_in(sentence: str) -> str:
    """The value in "The number of points is 42" and "Jane started 42 hours ago"; the sentence where it has none."""
    about = _ABOUT.match(sentence)
    if about:
        return sentence[about.end() :]
    subjects = list(_SUBJECT.finditer(sentence))
    if subjects:
        value = tidy(sentence[subjects[-1].end() :])
        return value if value and not _DENIAL.match(value) else sentence
    numbers = _NUMBER.findall(sentence)
    if len(numbers) == 1 and "\\" not in sentence and len(sentence.split()) > 2:
        return numbers[0]
    return sentence


def _sentence(text: str) -> str:
    """Up to the full stop or line end that closes the sentence; a point inside a number closes nothing."""
    for place, mark in enumerate(text):
        if mark in "\n。．":
            return text[:place]
        if mark in ".!?" and not text[:place].endswith("\\"):
            after = text[place + 1 : place + 2]
            if (
                not after
                or after.isspace()
                or (after in "*`\"'”" and not text[place + 2 : place + 3].isalnum())
            ):
                return text[:place]
    return text


def tidy(text: str) -> str:
    r"""Take off the dollar signs, \( \), ** and HTML that wrap an answer, and the words that follow it."""
    text = _HTML.sub("", text).strip()
    cut = _CUT.search(text)
    if cut and text[: cut.start()].strip():
        text = text[: cut.start()]
    text = _COPULA.sub("", text).strip().strip("`").strip()
    for mark in ("**", "__"):
        if text.count(mark) == 1:
            text = text.replace(mark, "")
    for opening, closing in (
        ("**", "**"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ('"', '"'), ("“", "”"),
    ):  # fmt: skip
        inner = text[len(opening) : len(text) - len(closing)]
        if (
            len(text) > len(opening)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
        ):
            text = inner.strip()
    for opening, closing in (("\\[", "\\]"), ("\\(", "\\)")):
        if text.endswith(closing) and opening not in text:
            text = text[:-2].strip()
    return text.rstrip(" .。．") if not text.endswith("\\.") else text


def is_answer_alone(text: str) -> str | None:
    """Return a text that is nothing but an answer: a number, a formula, a letter; None for prose."""
    bare = text.strip()
    if len(bare) > 100 or not _ALONE.fullmatch(bare) or _PROSE.search(bare) or placeholder(bare):
        return None
    return bare


def last_number(text: str) -> str | None:
    """Return the last number in a text."""
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return last.group() if last else None
