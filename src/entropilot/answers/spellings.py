r"""Write what people write as the LaTeX that it stands for: Unicode and ASCII mathematics, colours, numbers in words."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SUPERSCRIPTS = {
    ord(mark): str(plain) for mark, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", [*range(10), "+", "-", "n"], strict=True)
}
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]{1,40}")
_VULGAR = re.compile("[¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]")
_SIGNS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "/",
        "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "∪": "\\cup ", "∩": "\\cap ",
        "∈": "\\in ", "±": "\\pm ", "°": "^\\circ ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "ℝ": "\\mathbb{R}",
        "∅": "\\emptyset ", "∖": "\\setminus ", "、": ",", "。": ".", "′": "'", "∣": "|", "⟨": "(", "⟩": ")", "∨": " or ",
    }
)  # fmt: skip
_INSIDE = (
    r"\s?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}\}){0,300}\}){0,900})\}"  # braces, and braces inside of them
)
_FRAMES = (
    re.compile(r"\\(?:textcolor|colorbox)\s?\{[^{}]{0,40}\}" + _INSIDE),
    re.compile(r"\\(?:underline|bm|pmb|ensuremath|mathord|mathop)" + _INSIDE),
    re.compile(r"\\color\s?\{[^{}]{0,40}\}()"),  # `_group` takes off the braces that it leaves
    re.compile(
        r"\\(?:tiny|scriptsize|small|normalsize|large|Large|LARGE|huge|Huge|nolimits|therefore|boldmath|strut)(?![a-zA-Z])()"
    ),
)
_NAMES = (
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"\\[lr]vert(?![a-zA-Z])"), "|"),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\backslash(?![a-zA-Z])"), r"\\setminus"),
    (re.compile(r"\\(?:lor|vee)(?![a-zA-Z])"), " or "),
    (re.compile(r"\\(?:land|wedge)(?![a-zA-Z])"), " and "),
    (re.compile(r"\\not\s?=|!="), r"\\ne "),
    (re.compile(r"(?<=[\w)}])\*\*(?=[\w({-])"), "^"),
    (re.compile(r"√\s?(\d+(?:\.\d+)?|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"√\s?\(([^()]{1,80})\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<=\d)\s?[xX]\s?(?=10\s?\^)"), r"\\times "),
    (re.compile(r"(?<![A-Za-z\\])log(2|10)\("), r"\\log_{\1}("),
    (re.compile(r"∛\s?(\d+(?:\.\d+)?|[A-Za-z])"), r"\\sqrt[3]{\1}"),
    (re.compile(r"(?:\\|(?<![A-Za-z\\]))sqrt\s?\(([^()]{1,80})\)"), r"\\sqrt{\1}"),
    (re.compile(r"\\sqrt\[(\w)\]\s?(\w)"), r"\\sqrt[\1]{\2}"),
    (re.compile(r"\^\s?\{?\s?o\s?\}?(?![A-Za-z])(?<=[o}])"), r"^\\circ "),
    (re.compile(r"\\mathrm\s?\{\s?([ie])\s?\}"), r"\1 "),
    (re.compile(r"\\math(?:bf|bb|it|sf)\s?\{\s?([a-z])\s?\}"), r"\1 "),
)
_INFIX = re.compile(
    r"\{\s{0,3}([^{}]{1,40}?)\s{0,3}\\(choose|over)(?![a-zA-Z])\s{0,3}([^{}]{1,40}?)\s{0,3}\}"
)
_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|pi|theta|alpha|beta|gamma|"
    r"lambda|omega|phi|infty)(?![a-z])"
)
_INFINITY = re.compile(r"(?<![\\a-zA-Z])(?:infinity|inf)(?![a-zA-Z])", re.IGNORECASE)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_DEGREES = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![a-zA-Z]))")
_REPEATING = re.compile(
    r"(?<![\d.])(\d{0,20})\.(\d{0,20})(?:\\(?:overline|bar|dot)\s?\{(\d{1,20})\}|\((\d{1,20})\))"
)
_DOUBLE_FACTORIAL = re.compile(r"(?<![\w.)])(\d{1,3})!!(?!!)")
_MIXED = re.compile(r"([+-]?)\s?(\d{1,12})\s+(\d{1,9})\s?/\s?(\d{1,9})(?=\s+[A-Za-z]{2}|$)")
_BLANK_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?![\d])(?:\.\d+)?")
_SCALED = re.compile(
    r"([+-]?\d[\d,]{0,20}(?:\.\d{1,20})?)\s?(?:\\(?:text|mathrm)\{)?\s?(hundred|thousand|million|billion|trillion|dozen)s?\s?\}?(?![a-z])"
)
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
}  # fmt: skip
_RAISED = re.compile(r"([\w.)}]{1,40})\s?(?:\\text\{)?\s?(squared|cubed)\s?\}?$")
_ORDINAL = re.compile(
    r"(\d)\s?(?:\^\s?\{?\s?)?(?:\\(?:text|mathrm|textrm)\s?\{\s?)?(?:st|nd|rd|th)\s?\}{0,2}$"
)
_WORDS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
_ONE_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf)\s?\{([^{}]{0,900})\}")
_LEAD = re.compile(r"(?:=|\\approx(?![a-zA-Z])|\\Rightarrow|\\implies|\\quad|:)\s*")
_ABOUT = re.compile(
    r"^(?:about|around|approximately|approx\.?|roughly|exactly)\s+(?=[-+\d.\\$(])", re.IGNORECASE
)
_NEGATIVE = re.compile(rf"(?:negative|minus)\s+(?=\$?[\d.\\]|(?:{'|'.join(_WORDS)})$)", re.IGNORECASE)
_AND = re.compile(r"\\text\{\s?(?:和|或|与|及)\s?\}|(?<=[\d)}])\s?(?:和|或|与|及)\s?(?=[-\d(\\])")


def spell(answer: str) -> str:
    """Return the answer in LaTeX spelling, as far as the text alone says what is meant; only numbers are evaluated."""
    text = _SUPERSCRIPT.sub(lambda run: f"^{{{run.group().translate(_SUPERSCRIPTS)}}}", answer)
    text = _VULGAR.sub(_vulgar, text).translate(_SIGNS)
    text = unicodedata.normalize("NFKC", text)  # full-width letters, digits and brackets
    text = "".join(mark for mark in text if unicodedata.category(mark) != "Cf").translate(_SIGNS).strip()
    text = _INFIX.sub(_prefixed, text)
    for _ in range(3):  # colours within frames
        before = text
        for frame in _FRAMES:
            text = frame.sub(lambda match: f" {match.group(1)} ", text)
        if text == before:
            break
    text = text.strip()
    while text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1].rstrip()
    whole = _ONE_TEXT.fullmatch(text)
    if whole:
        text = whole.group(1).strip()
    text = _group(_LEAD.sub("", text, count=1) if _LEAD.match(text) else text)
    text = _ABOUT.sub("", text)
    negative = _NEGATIVE.match(text)
    if negative:
        text = text[negative.end() :]
    if text.lower() in _WORDS:
        text = str(_WORDS[text.lower()])
    if negative:
        text = "-" + text
    for pattern, plain in _NAMES:
        text = pattern.sub(plain, text)
    text = _AND.sub(",", text)
    if not re.fullmatch(r"[A-Za-z][A-Za-z ,.'-]*", text) or _FUNCTION.fullmatch(text):
        text = _FUNCTION.sub(r"\\\1 ", text)
        text = _INFINITY.sub(r"\\infty ", text)
    elif _INFINITY.fullmatch(text):
        text = r"\infty"
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"(\1\\cdot\\frac{\\pi}{180})", text)
    text = _REPEATING.sub(_repeating, text)
    text = _DOUBLE_FACTORIAL.sub(_double_factorial, text)
    mixed = _MIXED.match(text)
    if mixed and int(mixed.group(4)):
        sign, number, top, bottom = mixed.groups()
        text = f"{sign}{number}\\frac{{{top}}}{{{bottom}}}{text[mixed.end() :]}"
    if _BLANK_THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    text = _SCALED.sub(_scaled, text)
    text = _RAISED.sub(lambda match: f"{match.group(1)}^{2 if match.group(2)[0] == 's' else 3}", text)
    return _ORDINAL.sub(r"\1", text)


def _prefixed(match: re.Match[str]) -> str:
    top, name, bottom = match.groups()
    return f"\\{'binom' if name == 'choose' else 'frac'}{{{top}}}{{{bottom}}}"


def _group(text: str) -> str:
    """Take off a pair of braces around all of a text, unless it may stand for a set."""
    while text.startswith("{") and text.endswith("}") and "," not in text and ";" not in text:
        depth = 0
        for place, mark in enumerate(text):
            depth += (mark == "{") - (mark == "}")
            if depth == 0 and place < len(text) - 1:
                return text  # {a}{b}
        if depth:
            return text
        text = text[1:-1].strip()
    return text


def _vulgar(match: re.Match[str]) -> str:
    value = Fraction(unicodedata.numeric(match.group())).limit_denominator(10)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _repeating(match: re.Match[str]) -> str:
    whole, fixed, period = match.group(1) or "0", match.group(2), match.group(3) or match.group(4)
    digits = int(whole + fixed + period) - int(whole + fixed)
    value = Fraction(digits, (10 ** len(period) - 1) * 10 ** len(fixed))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _double_factorial(match: re.Match[str]) -> str:
    number = 1
    for factor in range(int(match.group(1)), 1, -2):
        number *= factor
    return str(number)


def _scaled(match: re.Match[str]) -> str:
    value = Fraction(match.group(1).replace(",", "")) * _SCALES[match.group(2)]
    return str(value.numerator) if value.denominator == 1 else match.group()
