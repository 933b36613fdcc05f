"""Extract the final answer of a completion by a named rule, in time linear in the text, whatever the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from entropilot.answers.extraction.choices import letter_of, letters_after
from entropilot.answers.extraction.phrases import (
    REACH,
    after_phrase,
    after_weak_phrase,
    is_answer_alone,
    last_number,
    placeholder,
    tidy,
)
from entropilot.errors import UserError

_BRACES = re.compile(
    r"((?:\\{1,2}(?:boxed|fbox|framebox)|(?<![\\A-Za-z])boxed)[ \t]{0,20}\{)|\\.|[{}]", re.DOTALL
)  # an escaped brace is no brace
_BARE_BOX = re.compile(
    r"\\boxed[ \t]{0,20}(-?\d{1,40}(?:\.\d{1,40})?(?![\d{])|"
    r"\\[dt]?frac[ \t]?\{[^{}]{1,100}\}[ \t]?\{[^{}]{1,100}\}|[A-Za-z](?![A-Za-z{]))"
)
_INNER_BOX = re.compile(r"\\{1,2}(?:boxed|fbox|framebox)[ \t]{0,20}(?=\{)")
_ANNOUNCED = re.compile(r"^\s{0,8}\\text\{[^{}]{0,40}\b(?:is|are|=)\s{0,4}:?\s{0,4}\}")
_SIGN_BEFORE = re.compile(r"(?:(?:^|[=$(\s])-|[=$(]-?\d{1,9}(?:\.\d{1,9})?(?:\\cdot ?)?)$")
_FACTOR_AFTER = re.compile(
    r"[ \t]?(?:\\%|%|\^\{?\\circ\}?|\\pi(?![a-zA-Z])|\\sqrt\{\d{1,9}\}|i(?![a-zA-Z])|\^\{\d{1,9}\}|\^\d)"
)
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$]|\\q?quad|\\[,;! ]|\\(?:text|mbox)\{[^{}]{0,40}\}|\\[()\[\]]|,|;|\b(?:and|or|for|part)\b|"
    r"\([a-d]\)|、|和){1,20}"
)
_JOINS = re.compile(r",|;|\b(?:and|or)\b|、|和")
_END_OF_TURN = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|im_start)\|>|</s>|<end_of_turn>")
_NEXT_QUESTION = re.compile(
    r"\n[ \t#*]{0,8}(?:Question|Problem|Exercise|Q|Human|User|Instruction|Example)[ \t]?\d{0,4}[ \t]?[:.]"
)
_AFTER_THINKING = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_HEADING_WORD = re.compile(r"[*_\s]{0,8}[A-Za-z]{2,}")
_WORD_ANSWER = re.compile(
    r"[*_\s]{0,8}(?:yes|no|true|false|none|undefined|no solutions?)[.*_\s]{0,8}$", re.IGNORECASE
)


def extract(text: str, rule: str = "auto", stop_strings: Sequence[str] = ()) -> str | None:
    r"""Return the final answer that a completion gives, or None where it gives none.

    Text after an end-of-turn token counts for nothing. Text after `</think>` goes first; what is inside of the thoughts
    counts only where nothing after them is an answer. Empty answers and placeholders ("your answer") are passed over.

    Rules (the last occurrence counts):
        strict: a \boxed{…} that is closed, else a value after "####". For rewards: nothing else can be mistaken for it.
        boxed: \boxed{…}, \fbox{…}, \boxed 7, and one that is never closed. Boxes joined by "and", "or" or a comma are one
            answer, as is a box with its sign or factor, -\boxed{5}\pi.
        hash: the value after "####" (GSM8K); a heading is no value.
        phrase: what follows "the answer is", "Answer:", a heading "Final answer" and their like in eight languages.
        tag: the content of the last <answer>…</answer>.
        choice: a multiple-choice letter: of a box or tag that holds one, of "answer is (B)" and its like, else of the text.
        auto: tag, boxed, hash, phrase, "Therefore, 5", "It is 5", a text that is nothing but an answer.
        first: `auto`, on the text before the next question: for base models that run on.
        lenient: `auto`, else the last number of the text.
        last_line: the last line that is not blank.
        mark: what stands behind the last "#", as the sandbox's model writes it.
        whole: the text itself, stripped.

    Args:
        text: the completion.
        rule: one of the names above.
        stop_strings: what ends the completion, for models whose end of turn is none of the usual tokens.

    Raises:
        UserError: the rule has no such name.
    """
    if rule not in RULES:
        raise UserError(f"There is no extraction rule named {rule!r}; choose one of {', '.join(RULES)}.")
    if rule != "whole":
        text = _one_turn(text, stop_strings)
    for part in _parts(text) if rule not in ("whole", "last_line") else [text]:
        answer = RULES[rule](part)
        if answer is not None and answer.strip():
            return answer.strip()
    return None


def without_copy(completion: str, question: str) -> str:
    """Return a completion without verbatim copies of its question: an example in the question is no answer of the model.

    A question of less than 20 characters stays in a longer text; it may be a part of an honest solution.
    """
    return " ".join(completion[start:end] for start, end in own_parts(completion, question))


def own_parts(completion: str, question: str) -> list[tuple[int, int]]:
    """Return the characters [start, end) before, between and behind verbatim copies: what `without_copy` joins."""
    copied = [(0, len(completion))] if completion.strip() == question.strip() else []
    if len(question) >= 20:
        copied = [found.span() for found in re.finditer(re.escape(question), completion)]
    starts, ends = [0, *(end for _, end in copied)], [*(start for start, _ in copied), len(completion)]
    return list(zip(starts, ends, strict=True))


def _one_turn(text: str, stop_strings: Sequence[str]) -> str:
    end = _END_OF_TURN.search(text)
    # A completion may begin with the token that opens its turn.
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    for stop in stop_strings:
        text = text.partition(stop)[0] if stop else text
    return text


def _parts(text: str) -> list[str]:
    """The text after the thoughts, then the thoughts."""
    end = None
    for end in _AFTER_THINKING.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return [text] if end is None else [text[end.end() :], text[: end.start()]]


def _boxed(text: str) -> str | None:
    return _boxes(text, closed=False)


def _boxes(text: str, closed: bool) -> str | None:
    if "box" not in text:
        return None
    # One pass with a stack of open braces: going back to look for a partner is what a hostile text asks for.
    spans: list[
        tuple[int, int, int]
    ] = []  # of outermost boxes: their start, and begin and end of the content
    stack: list[
        tuple[int, int] | None
    ] = []  # start and begin of content where the brace opens a box, else None
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "{" or token.group(1):
            stack.append((token.start(), token.end()) if token.group(1) else None)
        elif mark == "}" and stack:
            box = stack.pop()
            if box is not None:
                while spans and spans[-1][0] > box[0]:
                    spans.pop()
                spans.append((*box, token.start()))
    held = (span for span in reversed(spans) if not _nothing(text[span[1] : span[2]]))
    last, bare = next(held, None), None
    for bare in _BARE_BOX.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    if bare is not None and (last is None or bare.start() > last[0]):
        return bare.group(1)
    if last is not None:
        return _joined(text, last, held)
    unclosed = next((box for box in reversed(stack) if box is not None), None)
    if unclosed is None or closed:
        return None
    rest = re.split(r"\n|\$|\\[\])]", text[unclosed[1] : unclosed[1] + REACH], maxsplit=1)[0]
    return None if _nothing(rest) else _INNER_BOX.sub("", rest).strip().rstrip(".")


def _nothing(content: str) -> bool:
    inner = content if len(content) > REACH else _INNER_BOX.sub("", content).strip(" \t\r\n{}")
    return not inner.strip() or placeholder(inner)


def _joined(text: str, last: tuple[int, int, int], before: Iterator[tuple[int, int, int]]) -> str:
    """The last box, and the boxes before it, the nearest first, that belong to the same list."""
    spans = [last]
    for span in before:
        start, end = spans[-1][0], span[2]
        between = text[end + 1 : start] if start - end < 60 else ""
        if not (between and _BETWEEN_BOXES.fullmatch(between) and _JOINS.search(between)):
            break
        spans.append(span)
    contents = dict.fromkeys(_content(text, span) for span in reversed(spans))
    return ", ".join(contents)


def _content(text: str, span: tuple[int, int, int]) -> str:
    start, begin, end = span
    content = _ANNOUNCED.sub("", _INNER_BOX.sub("", text[begin:end])).strip()
    layers = min(len(content) - len(content.lstrip("{")), len(content) - len(content.rstrip("}")))
    inner = content[layers : len(content) - layers] if layers else content
    if layers and _balanced(inner):
        content = inner
    before = _SIGN_BEFORE.search(text[max(0, start - 24) : start])
    after = _FACTOR_AFTER.match(text, end + 1)
    sign = before.group().lstrip("=$( \t\r\n") if before else ""
    # −(a + b) is not −a + b; a single term needs no brackets.
    if sign and re.search(r"[-+=,<>]", content):
        return content
    return sign + content + (after.group().strip() if after and not re.search(r"[-+=,<>]", content) else "")


def _balanced(text: str) -> bool:
    depth = 0
    for mark in text:
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0


def _hash(text: str) -> str | None:
    end = len(text)
    for _ in range(50):  # the last fifty are enough to look at
        place = text.rfind("####", 0, end)
        if place < 0:
            return None
        line = text[place + 4 : place + 4 + REACH].lstrip("#").partition("\n")[0]
        if line.strip() and not placeholder(line) and not _heading(line):
            return tidy(line)
        end = place
    return None


def _heading(line: str) -> bool:
    """Whether what follows "####" is a heading in words: "Step 2: conclude" is no answer, and "x = 5" is one."""
    return bool(_HEADING_WORD.match(line)) and not _WORD_ANSWER.match(line)


def _tag(text: str) -> str | None:
    lower = text.lower() if text.isascii() else text  # lower() may change the length of other text
    end = lower.rfind("</answer>")
    begin = lower.rfind("<answer>", 0, max(end, 0))
    if end < 0 or begin < 0:
        return None
    content = text[begin + len("<answer>") : end]
    if placeholder(content):
        return None
    if len(content) > REACH:
        return content
    inner = _boxed(content) or after_phrase(content)
    return inner or tidy(content)


def _choice(text: str) -> str | None:
    for rule in (_tag, _boxed):
        inside = rule(text)
        letter = None if inside is None else letter_of(inside[:REACH])
        if letter is not None:
            return letter
    return letters_after(text)


def _strict(text: str) -> str | None:
    return _boxes(text, closed=True) or _hash(text)


def _auto(text: str) -> str | None:
    for rule in (_tag, _boxed, _hash, after_phrase, after_weak_phrase, is_answer_alone):
        answer = rule(text)
        if answer is not None and answer.strip():
            return answer
    return None


def _first(text: str) -> str | None:
    question = _NEXT_QUESTION.search(text, 1)
    return _auto(text[: question.start()] if question else text)


def _last_line(text: str) -> str | None:
    stripped = text.rstrip()
    return stripped[stripped.rfind("\n") + 1 :]


def _mark(text: str) -> str | None:
    return text.rpartition("#")[2] if "#" in text else None


RULES: dict[str, Callable[[str], str | None]] = {
    "auto": _auto,
    "strict": _strict,
    "boxed": _boxed,
    "hash": _hash,
    "phrase": after_phrase,
    "tag": _tag,
    "choice": _choice,
    "first": _first,
    "lenient": lambda text: _auto(text) or last_number(text),
    "last_line": _last_line,
    "mark": _mark,
    "whole": lambda text: text,
}
