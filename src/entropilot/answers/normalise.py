r"""Normalise answers that differ only in writing: $ signs, \left, \dfrac, units, degrees, "x =", separators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from entropilot.answers import units
from entropilot.answers.bases import in_base
from entropilot.answers.spellings import spell
from entropilot.answers.units import NAMES, clock, currency

LONGEST = 1000  # characters; a longer text is no final answer and is compared as it stands

_WRAPPERS = (("**", "**"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_THIN_COMMA = re.compile(
    r"(?<=\d),\s{0,3}\\[!,]\s{0,3}(?=\d{3})|(?<=\d)\{,\}(?=\d{3})|(?<=\d)\\[!,](?=\d{3})"
)
_THOUSANDS = re.compile(r"(\\?\$?\s?[+-]?\s?\\?\$?)((?!0)\d{1,3}(?:,\d{3})+)(?=[^\d,]|$)(?![^,]*,)")
_SIZES = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|quad|qquad|hfill|rm|bf)(?![a-zA-Z])\.?"
)
_SPACES = re.compile(r"(?<!\\)\\[!,;: ]|~")
_PRIMES = re.compile(r"(?<=[A-Za-z})])['’]+")  # the parser would drop them
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_TEXT = re.compile(
    r"\\(?:text|mbox|hbox|textbf|textit|textrm|textnormal|textsf|mathrm|mathbf|mathit|boldsymbol)\s?\{([^{}\\$]*)\}"
)
_TEXT_AND = re.compile(r"\\text\s?\{\s?,?\s?(?:and|or)\b")
_DEGREES = re.compile(r"\^\s?\{\s?\\circ\s?\}|\^\s?\\circ(?![a-zA-Z])|\\degrees?(?![a-zA-Z])|\\circ\s?$")
_PERCENT = re.compile(r"\s?(?:\\?%|\bper\s?cent|\bpercent(?:age)?)\s?$", re.IGNORECASE)
_NAME = re.compile(
    r"^((?:[A-Za-z]|\\[A-Za-z]{2,12})(?:_(?:\{[^{}=<>]{1,12}\}|\w))?(?:\([A-Za-z](?:,\s?[A-Za-z]){0,3}\))?)"
    r"\s?(?:=|\\in(?![a-z]))(.+)$",
    re.DOTALL,
)
_RELATION = re.compile(
    r"[=<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|neq?|in|approx|equiv|to)(?![a-zA-Z])"
)
_VARIABLE = r"\s?([A-Za-z]|\\[A-Za-z]{2,12})\s?"
_LESS = r"(<=?|\\(?:leqslant|leq|le|lt)(?![a-zA-Z]))"
_ORDER = r"([<>]=?|\\(?:leqslant|leq|le|lt|geqslant|geq|ge|gt)(?![a-zA-Z]))"
_BETWEEN = re.compile(rf"([^<>=,]{{1,200}}?){_LESS}{_VARIABLE}{_LESS}([^<>=,]{{1,200}})")  # 1 < x ≤ 2
_MORE = r"(>=?|\\(?:geqslant|geq|ge|gt)(?![a-zA-Z]))"
_BETWEEN_DOWN = re.compile(rf"([^<>=,]{{1,200}}?){_MORE}{_VARIABLE}{_MORE}([^<>=,]{{1,200}})")  # 2 ≥ x > 1
_BEYOND = re.compile(rf"{_VARIABLE}{_ORDER}([^<>=,]{{1,200}})")  # x ≥ 2
_AHEAD = re.compile(rf"([^<>=,]{{1,200}}?){_ORDER}{_VARIABLE}")  # 2 ≤ x
_STRICT = ("<", ">", "\\lt", "\\gt")
_SHORT_SCRIPT = re.compile(r"([_^])\s?\{\s?([A-Za-z0-9])\s?\}")
_BARE_FRACTION = re.compile(r"\\frac\s?(?:\{([^{}]*)\}|(\d))\s?(?:\{([^{}]*)\}|(\d))")
_BARE_ROOT = re.compile(r"\\sqrt\s?(\d)")
_POINT = re.compile(r"(?<![\d.])\.(?=\d)")
_EULER = re.compile(r"(?<=\d)\s?e(?=\s?[+-]\s)|(?<=\d)\se(?=[+-])")
_SCIENTIFIC = re.compile(r"(?<=\d)[eE]([+-]?\d{1,4})(?![\d.A-Za-z({^])")
_FACTOR = re.compile(r"(?<![_\d.])(\d+)\((?=\d*\\frac)")
_CHOICE = re.compile(r"^\(?\s?([A-J])\s?[).:]?$")
_WORDS = re.compile(r"^(?:[A-Za-z]{3,}|[A-Za-z]{1,2}(?= [A-Za-z]{3}))(?:[ -][A-Za-z]+){0,8}$")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\w)")
_LAST_S = re.compile(r"(?<=[a-rt-z]{3})s$")
_GAP = re.compile(r"\s+")

_ORDERED = re.compile(r"[<>]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt|neq?)(?![a-zA-Z])")
_OR = re.compile(r"\s?\\text\s?\{\s?,?\s?or\s?\}\s?|\s?\bor\b\s?")
_AND = re.compile(r"\s?\\text\s?\{\s?,?\s?and\s?\}\s?|\s?\band\b\s?")
_MATH_MARKS = re.compile(r"(?<!\\)\\[()\[\]]|\$")
_CASES = re.compile(r"\\begin\{cases\}(.{1,400})\\end\{cases\}", re.DOTALL)
_PIECEWISE = re.compile(
    r"(?:([A-Za-z](?:\([A-Za-z]\))?)\s?=\s?)?\\begin\{cases\}([^&]{1,200}&.{1,600})\\end\{cases\}", re.DOTALL
)
_WHEN = re.compile(r"^[\s,]*(?:if|for|when|where)\b")
_OTHERWISE = re.compile(r"(?:otherwise|else|elsewhere)")
_FRENCH = re.compile(
    r"(\])([^\[\]()]{1,200},[^\[\]()]{1,200})([\[\]])|(\[)([^\[\]()]{1,200},[^\[\]()]{1,200})(\[)"
)
_BARE_SET = re.compile(r"\{([^{}=\\]{1,200},[^{}=\\]{1,200})\}")
_POINT_NAME = re.compile(r"[A-Z]\s?(\([^()]{1,100},[^()]{1,100}\))")
_INTEGER = re.compile(
    r"(.{1,300}?),?\s*(?:\\(?:quad|;|,)\s*)?(?:where\s+)?([kmnl])\s*\\in\s*\\mathbb\s?\{?Z\}?"
)
_MODULUS = re.compile(r"(?:[a-z]\s?\\equiv\s?)?(-?\d+)\s?\(?\\(?:pmod|mod|bmod)\s?\{?\s?(\d+)\s?\}?\)?")
_LISTED = re.compile(r"\\?\{?\(?((?!0)\d{1,3}(?:,\d{3})+)\)?\\?\}?")
_OPTION = re.compile(r"\s*(?:\\text\w*\s?\{\s?)?(?:\(([A-J])\)|([A-J])[:.)](?=\s))\s*\S")
_FLIPPED = re.compile(r"([^=<>]{1,300}?)\s?=\s?([A-Za-z])")
_UNITLESS = re.compile(
    r"(?<=[\w})])\s?\\(?:text|mbox|hbox|textrm|mathrm|textbf)\s?\{([^{}\\$]*)\}\s{0,3}(?:\^\s?\{?\s?([23])\s?\}?)?$"
)
_AFTER_EXPRESSION = re.compile(
    r"(?<=[\d})A-Za-z\s])\s?((?:(?:square|cubic|sq\.?|cu\.?) )?(?:cm|mm|km|kg|rad|"
    + "|".join(sorted((unit for unit in NAMES if len(unit) > 3 and unit.isalpha()), key=len, reverse=True))
    + r"))(?:\s?\^\s?\{?\s?([23])\s?\}?)?$"
)


@dataclass(frozen=True)
class Normal:
    """Hold an answer in one spelling.

    Attributes:
        body: what is compared.
        name: what the answer calls it: x of "x = 5", f(x) of "f(x) = 2x"; None where it does not.
        unit: one name per unit ("inch^2", "percent", "dollar", "base 8"); None where there is none.
        listed: the same text read as a list, where a comma may separate thousands or members: "150,300".
        option: the letter of a multiple-choice answer with its text: B of "(B) 12".
    """

    body: str
    name: str | None = None
    unit: str | None = None
    listed: str | None = None
    option: str | None = None

    def meets(self, other: Normal) -> bool:
        """Tell whether names and units agree: "5", "x = 5" and "5 cm" meet, "5 m" and "5 cm" do not."""
        return (self.name is None or other.name is None or self.name == other.name) and (
            self.unit is None or other.unit is None or self.unit == other.unit
        )


def normalise(answer: str) -> Normal:
    """Bring an answer into one spelling; nothing is computed, and a text of more than 1000 characters stays as it is."""
    return _normalise(answer) if len(answer) <= LONGEST else Normal(answer)


@lru_cache(maxsize=20_000)
def _normalise(answer: str) -> Normal:
    option = _OPTION.match(answer)
    text = _unwrap(_THIN_COMMA.sub("", spell(_unwrap(answer.strip()))))
    based = in_base(text)
    if based:
        return Normal(based[0], unit=f"base {based[1]}")
    listed = _LISTED.fullmatch(text)
    text, time_of_day = clock(text)
    text, money = currency(text)
    text = _without_thousands(_rows(text))
    unit = "dollar" if re.match(r"[+-]?\s?\\?\$\s?[+-]?[\d.]", text) else None
    text = _MATH_MARKS.sub("", text.replace("\\$", ""))
    text = _SPACES.sub(" ", _SIZES.sub(" ", text))
    text = _PRIMES.sub(lambda match: "^{" + "\\prime" * len(match.group()) + "}", text)
    text = _FRACTIONS.sub(r"\\frac", text).replace("\\{", "\ue001").replace("\\}", "\ue002")
    text, taken = _take_unit(_GAP.sub(" ", text).rstrip(" .;,:").lstrip(" ;,:"))
    unit = taken or unit or money or time_of_day
    text = _TEXT.sub(lambda match: _joined(match.group(1)), text)
    text = text.replace("\ue001", "\\{").replace("\ue002", "\\}")
    text = _GAP.sub(" ", text).rstrip(" .;,:").lstrip(" ;,:")
    name = None
    piecewise = _PIECEWISE.fullmatch(text)
    if piecewise:
        name, text = _tight(piecewise.group(1) or "") or None, _pieces(piecewise.group(2))
    named = None if piecewise else _NAME.match(text)
    if named and not _RELATION.search(named.group(2)) and named.group(2).strip():
        name, text = _tight(named.group(1)), named.group(2).strip()
    flipped = _FLIPPED.fullmatch(text) if name is None else None
    if flipped:
        name, text = flipped.group(2), flipped.group(1)
    if not piecewise:
        name, text = _interval(name, text)
    modulus = _MODULUS.fullmatch(text)
    if modulus:
        name, text, unit = None, modulus.group(1), f"mod {modulus.group(2)}"
    based = in_base(text)  # now without a name: x = 52_8
    if based:
        text, unit = based[0], f"base {based[1]}"
    letter = (option.group(1) or option.group(2)) if option else None
    return Normal(_body(text), name, unit, listed.group(1) if listed else None, letter)


def _rows(text: str) -> str:
    """Write cases as the list of their rows, (1, 2[ as it is elsewhere, {1,2} with its backslashes, A(1,2) as the point."""
    if _ORDERED.search(text):  # "x < 2 or x > 3" is a union, where a comma may mean either
        text = _AND.sub(",", _OR.sub(";", text))
    cases = _CASES.fullmatch(text)
    if cases and "&" not in cases.group(1):
        text = ",".join(row.strip() for row in cases.group(1).split("\\\\") if row.strip())
    half_open = _FRENCH.fullmatch(text)
    if half_open:
        left, inside, right = (group for group in half_open.groups() if group)
        text = f"{'(' if left == ']' else '['}{inside}{')' if right == '[' else ']'}"
    bare = _BARE_SET.fullmatch(text)
    if bare:
        text = f"\\{{{bare.group(1)}\\}}"
    point = _POINT_NAME.fullmatch(text)
    if point:
        text = point.group(1)
    integer = _INTEGER.fullmatch(text)
    if integer and not re.search(
        r"(?<![a-zA-Z\\])n(?![a-zA-Z])", integer.group(1).replace(integer.group(2), "")
    ):
        letter = integer.group(2)
        text = re.sub(rf"(?<![a-zA-Z\\]){letter}(?![a-zA-Z])", "n", integer.group(1)).strip()
    return text


def _unwrap(text: str) -> str:
    for opening, closing in _WRAPPERS:
        inner = text[len(opening) : len(text) - len(closing)]
        if (
            len(text) > 2 * len(opening)
            and text.startswith(opening)
            and text.endswith(closing)
            and opening not in inner
        ):
            text = inner.strip()
    return text


def _without_thousands(text: str) -> str:
    match = _THOUSANDS.match(text)
    if not match or text[match.end() : match.end() + 1] == "$":  # $100$,$200$ is a list
        return text
    return match.group(1) + match.group(2).replace(",", "") + text[match.end() :]


def _take_unit(text: str) -> tuple[str, str | None]:
    """Split a unit off the end; what is left is never empty."""
    percent = _PERCENT.search(text)
    if percent and text[: percent.start()].strip():
        return text[: percent.start()], "percent"
    if text.endswith("pct") and text[:-3].strip():
        return text[:-3].rstrip(), "percent"
    if not _TEXT_AND.search(text):
        number, name = units.unit(text)
        if name is not None:
            return number, name
    for pattern in (_UNITLESS, _AFTER_EXPRESSION):  # after an expression only what the list holds
        written = pattern.search(text)
        if written and text[: written.start()].strip():
            words = _GAP.sub(" ", written.group(1)).strip(" .,")
            if not words:
                return text[: written.start()], None
            if words.lower() in ("percent", "per cent", "pct"):
                return text[: written.start()].rstrip(" ,"), "percent"
            name = units.compound(f"{words}^{written.group(2)}" if written.group(2) else words)
            if name is not None:
                return text[: written.start()].rstrip(" ,"), name
    without = _DEGREES.sub("", text)
    if without != text and without.strip():
        return without, "degree" if _DEGREES.sub("", text[-12:]) != text[-12:] and "," not in text else None
    return text, None


def _joined(words: str) -> str:
    return " , " if words.strip().lower() in ("and", "or", ", and", ", or", ",and", ",or") else f" {words} "


def _interval(name: str | None, text: str) -> tuple[str | None, str]:
    """Write 1 < x ≤ 2 and x ≥ 2 as the intervals that they are, of the variable x."""
    if text.startswith("\\{"):
        return name, text
    downward = _BETWEEN_DOWN.fullmatch(text)
    if downward and name is None:
        high, upper, name, lower, low = downward.groups()
        return name, f"{'(' if lower in _STRICT else '['}{low},{high}{')' if upper in _STRICT else ']'}"
    between = _BETWEEN.fullmatch(text)
    if between and name is None:
        low, lower, name, upper, high = between.groups()
        return name, f"{'(' if lower in _STRICT else '['}{low},{high}{')' if upper in _STRICT else ']'}"
    beyond = _BEYOND.fullmatch(text)
    if beyond and name is None and not _RELATION.search(beyond.group(3)):
        name, relation, end = beyond.groups()
        strict = relation in _STRICT
        if relation[0] == "<" or relation.startswith("\\l"):
            return name, f"(-\\infty,{end}{')' if strict else ']'}"
        return name, f"{'(' if strict else '['}{end},\\infty)"
    return name, text


def _pieces(rows: str) -> str:
    """Write each row "value & if x ≥ 0" of a piecewise function as value & x & [0, ∞)."""
    cells = [row.split("&") for row in rows.split("\\\\") if row.strip(" .,;")]
    written = []
    for value, *conditions in cells:
        condition = _WHEN.sub("", " ".join(conditions)).strip(" ,.;")
        ahead = _AHEAD.fullmatch(condition)
        if ahead:
            end, relation, letter = ahead.groups()
            less = relation[0] == "<" or relation.startswith("\\l")
            condition = f"{letter}{'>' if less else '<'}{'' if relation in _STRICT else '='}{end}"
        variable, where = _interval(None, condition)
        where = "otherwise" if _OTHERWISE.fullmatch(where) else where
        written.append("&".join((value.strip(" ,;."), variable or "", where)))
    return "\\begin{cases}" + "\\\\".join(written) + "\\end{cases}"


def _body(text: str) -> str:
    choice = _CHOICE.match(text)
    if choice:
        return choice.group(1)
    text = _GAP.sub(" ", text).strip()
    if _WORDS.match(text):
        # A name of three capitals (HHT, ABC) is no product of its letters.
        if len(text) == 3 and text.isupper() and text != "YES":
            return text
        return _LAST_S.sub("", _ARTICLE.sub("", text.lower()))
    text = re.sub(r"(?<=[\d}) ])\s?\b(?:and|or)\b\s?(?=[-\\\d(])", ",", text)
    text = text.replace(",,", ",").replace(", ,", ",")
    for _ in range(3):  # fractions within fractions
        fixed = _BARE_FRACTION.sub(_braced, text)
        if fixed == text:
            break
        text = fixed
    # 2e - 2 with blanks is two e less two; 2e-2 without them is two hundredths.
    text = _EULER.sub(r"\\cdot e", text)
    text = _SHORT_SCRIPT.sub(r"\1\2", _BARE_ROOT.sub(r"\\sqrt{\1}", text))
    text = _POINT.sub("0.", _tight(text))
    text = _SCIENTIFIC.sub(r"\\cdot10^{\1}", text)
    text = _FACTOR.sub(r"\1\\cdot(", text)  # the parser takes 2(\frac{1}{3}) for two and a third
    return text[1:] if text.startswith("+") and len(text) > 1 else text


def _braced(match: re.Match[str]) -> str:
    top = match.group(1) if match.group(1) is not None else match.group(2)
    bottom = match.group(3) if match.group(3) is not None else match.group(4)
    return f"\\frac{{{top.strip()}}}{{{bottom.strip()}}}"


def _tight(text: str) -> str:
    """Without the blanks that mean nothing: those between two letters or two digits mean something."""
    pieces: list[str] = []
    last = ""
    for piece in text.split():
        if last and ((last.isalpha() and piece[0].isalpha()) or (last.isdigit() and piece[0].isdigit())):
            pieces.append(" ")
        pieces.append(piece)
        last = piece[-1]
    return "".join(pieces)
