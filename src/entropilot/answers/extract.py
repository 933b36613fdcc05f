"""The final answer of a completion, by a named rule. Every rule takes time linear in the text, whatever the text."""

from __future__ import annotations

import re
from collections.abc import Callable

from entropilot.errors import UserError

_BRACES = re.compile(
    r"(\\{1,2}(?:boxed|fbox)[ \t]{0,20}\{)|\\.|[{}]", re.DOTALL
)  # an escaped brace is no brace
_PHRASE = re.compile(r"\banswer[ \t]{0,4}(?:is|are|:|=)", re.IGNORECASE)
_LETTER = re.compile(r"\(([A-J])\)|(?<![A-Za-z\\])([A-J])(?![A-Za-z'’])")
_CHOICE_ANCHOR = re.compile(r"\b(?:answer|option|choice)\b", re.IGNORECASE)
_LABEL = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{?")
_REACH = 400  # characters: how far after "the answer is" an answer may go on


def extract(text: str, rule: str = "auto") -> str | None:
    r"""The final answer that a completion gives, or None where it gives none.

    Rules (the last occurrence counts, and an answer of blanks only is none):
        boxed: the content of the last balanced \boxed{…} or \fbox{…} (the innermost of nested ones); a box that is
            empty or never closed is passed over.
        hash: what follows the last "####" on its line (GSM8K).
        phrase: what follows "the answer is" (or "answer:") up to the end of its sentence.
        tag: the content of the last <answer>…</answer>.
        choice: a multiple-choice letter A-J: of the last box or tag, else the first after the last word "answer",
            "option" or "choice", else a text that is nothing but a letter.
        auto: tag, boxed, hash, phrase, the first that finds something.
        last_line: the last line that is not blank.
        whole: the text itself, stripped.

    Raises:
        UserError: the rule has no such name.
    """
    if rule not in RULES:
        raise UserError(f"There is no extraction rule named {rule!r}; choose one of {', '.join(RULES)}.")
    found = RULES[rule](text)
    return (found.strip() or None) if found is not None else None


def _boxed(text: str) -> str | None:
    # One pass with a stack of open braces: going back to look for a partner is what a hostile text asks for.
    best: tuple[int, int] | None = None
    stack: list[int | None] = []  # where the content begins if the brace opens a box, else None
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "{" or token.group(1):
            stack.append(token.end() if token.group(1) else None)
        elif mark == "}" and stack:
            begin = stack.pop()
            # The box that begins last wins; of boxes in one another that is the innermost.
            if (
                begin is not None
                and (best is None or begin > best[0])
                and text[begin : token.start()].strip()
            ):
                best = (begin, token.start())
    return text[best[0] : best[1]] if best else None


def _hash(text: str) -> str | None:
    at = text.rfind("####")
    return None if at < 0 else text[at + 4 :].lstrip("#").partition("\n")[0]


def _tag(text: str) -> str | None:
    lower = text.lower() if text.isascii() else text  # lower() may change the length of other text
    end = lower.rfind("</answer>")
    begin = lower.rfind("<answer>", 0, max(end, 0))
    return None if end < 0 or begin < 0 else text[begin + len("<answer>") : end]


def _phrase(text: str) -> str | None:
    last = None
    for last in _PHRASE.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if last is None:
        return None
    rest = text[last.end() : last.end() + _REACH].lstrip(" \t:*=")
    rest = rest.lstrip() if rest[:1] in "\r\n" else rest
    return _tidy(_sentence(rest))


def _sentence(text: str) -> str:
    """Up to the full stop or line end that closes the sentence; a point inside a number closes nothing."""
    for at, mark in enumerate(text):
        if mark == "\n":
            return text[:at]
        if mark in ".!?" and (at + 1 == len(text) or text[at + 1].isspace()) and not text[:at].endswith("\\"):
            return text[:at]
    return text


def _tidy(text: str) -> str:
    """Take off the dollar signs, \\( \\) and ** that wrap an answer."""
    text = text.strip()
    for opening, closing in (("**", "**"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        inner = text[len(opening) : len(text) - len(closing)]
        if (
            len(text) > len(opening)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
        ):
            text = inner.strip()
    return text


def _choice(text: str) -> str | None:
    for rule in (_tag, _boxed):
        inside = rule(text)
        if inside is not None:
            return _letter(inside[:_REACH])
    last = None
    for last in _CHOICE_ANCHOR.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if last is not None:
        return _letter(_sentence(text[last.end() : last.end() + _REACH].lstrip()))
    bare = text.strip()
    return _letter(bare) if len(bare) <= 4 else None


def _letter(text: str) -> str | None:
    found = _LETTER.search(_LABEL.sub(" ", text))
    return (found.group(1) or found.group(2)) if found else None


def _auto(text: str) -> str | None:
    for rule in (_tag, _boxed, _hash, _phrase):
        found = rule(text)
        if found is not None and found.strip():
            return found
    return None


def _last_line(text: str) -> str | None:
    stripped = text.rstrip()
    return stripped[stripped.rfind("\n") + 1 :]


RULES: dict[str, Callable[[str], str | None]] = {
    "auto": _auto,
    "boxed": _boxed,
    "hash": _hash,
    "phrase": _phrase,
    "tag": _tag,
    "choice": _choice,
    "last_line": _last_line,
    "whole": lambda text: text,
}
