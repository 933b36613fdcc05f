r"""Take a unit off the end of an answer: from a list, or nouns after a number ("7 apples"); never a variable."""

from __future__ import annotations

import re

NAMES = {  # spelling → one name
    **dict.fromkeys(("degree", "degrees", "deg", "^\\circ"), "degree"),
    **dict.fromkeys(("radian", "radians", "rad"), "radian"),
    **dict.fromkeys(("dollar", "dollars", "usd", "USD"), "dollar"),
    **dict.fromkeys(("euro", "euros", "EUR", "€"), "euro"),
    **dict.fromkeys(("£", "GBP"), "pound sterling"),
    **dict.fromkeys(("¥", "yuan", "CNY", "RMB", "元"), "yuan"),
    **dict.fromkeys(("₹", "Rs", "Rs.", "rupees", "INR"), "rupee"),
    **dict.fromkeys(("cent", "cents"), "cent"),
    **dict.fromkeys(("inch", "inches", "in"), "inch"),
    **dict.fromkeys(("foot", "feet", "ft"), "foot"),
    **dict.fromkeys(("yard", "yards", "yd"), "yard"),
    **dict.fromkeys(("meter", "meters", "metre", "metres", "m", "米"), "metre"),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres", "厘米"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "毫米"), "mm"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres", "千米"), "km"),
    **dict.fromkeys(("mile", "miles", "mi"), "mile"),
    **dict.fromkeys(("second", "seconds", "sec", "secs", "s", "秒"), "second"),
    **dict.fromkeys(("minute", "minutes", "min", "mins", "分钟"), "minute"),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "h", "小时"), "hour"),
    **dict.fromkeys(("day", "days", "天"), "day"),
    **dict.fromkeys(("year", "years"), "year"),
    **dict.fromkeys(("kg", "kilogram", "kilograms", "千克"), "kg"),
    **dict.fromkeys(("gram", "grams", "g"), "gram"),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), "pound"),
    **dict.fromkeys(("L", "liter", "liters", "litre", "litres"), "litre"),
    **dict.fromkeys(("mL", "ml", "milliliter", "milliliters"), "ml"),
    **dict.fromkeys(("gallon", "gallons", "gal"), "gallon"),
    **dict.fromkeys(("unit", "units"), "unit"),
    **dict.fromkeys(("Hz", "hertz"), "Hz"),
    **dict.fromkeys(("\\Omega", "ohm", "ohms", "Ω"), "ohm"),
    "mph": "hour^-1 mile",  # as `_compound` writes miles per hour
    **dict.fromkeys(("kph", "kmph"), "hour^-1 km"),
    **dict.fromkeys(("\\mu m", "μm", "\\mum"), "micrometre"),
    **{name: name for name in ("N", "J", "W", "V", "K", "Pa", "kPa", "eV", "keV", "MeV", "mol", "kJ", "kW", "mg", "MHz",
       "GHz", "nm", "kHz", "rpm", "mA", "ms", "AU", "cal", "kcal", "atm", "T", "A", "C", "F")},
}  # fmt: skip
# Letters that are rather variables, where no \text{} says otherwise.
_SHORT = {
    "m",
    "s",
    "h",
    "g",
    "L",
    "N",
    "J",
    "W",
    "V",
    "K",
    "T",
    "A",
    "C",
    "F",
    "in",
    "hr",
    "ft",
    "mi",
    "min",
    "sec",
    "yd",
}
_WRAPPED = re.compile(
    r"\\(?:text|mbox|hbox|textrm|textnormal|mathrm|textit|rm|operatorname)\s?\{([^{}\\$]*)\}"
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ARTICLES = ("a", "an", "of", "per", "old", "in", "on", "each", "the")
_NO_NOUNS = {
    "or", "and", "more", "less", "fewer", "is", "are", "not", "no", "than", "at", "least", "most", "if", "when",
    "only", "solution", "solutions", "impossible", "mod", "over", "plus", "minus", "where", "for", "all", "any",
    "none", "undefined", "but", "with", "exactly", "about", "to", "by", "squared", "cubed", "thousand", "million",
    "billion", "dozen", "hundred", "trillion", "up",
}  # fmt: skip
_NUMBER = (
    r"[-+]?(?:\d{0,12}\\frac\s?\{[^{}]{1,40}\}\s?\{[^{}]{1,40}\}|\d{1,12}/\d{1,12}|"
    r"\d[\d.,]*(?:\s?(?:\\times|\\cdot|\*)\s?10\^(?:\{[-+]?\d{1,4}\}|\d))?)"
)
_TAIL = re.compile(rf"({_NUMBER})(?P<gap>[ ~]{{0,3}})(\S[^\d\s+=<>][^+=<>]{{0,80}}|\S)", re.DOTALL)
_NOUNS = re.compile(r"[A-Za-z]{2,20}(?:[ -](?:an?|[A-Za-z]{2,20})){0,4}")
_CHINESE = re.compile(r"(?:平方|立方)?[\u4e00-\u9fff]{1,6}")
_CURRENCY_FIRST = re.compile(r"([+-]?)\s?(?:\\text\s?\{)?\s?(€|£|¥|₹|Rs\.?|USD|EUR)\s?\}?\s?(?=[-\d.])")
_CLOCK = re.compile(r"(\d{1,2}:\d{2}(?::\d{2})?)\s?(?:\\text\s?\{)?\s?([ap])\.?\s?m\.?\s?\}?", re.IGNORECASE)


def clock(text: str) -> tuple[str, str | None]:
    """Split "4:30 p.m." into the time and "pm"."""
    match = _CLOCK.fullmatch(text)
    return (match.group(1), f"{match.group(2).lower()}m") if match else (text, None)


def currency(text: str) -> tuple[str, str | None]:
    """Take a currency off the front."""
    match = _CURRENCY_FIRST.match(text)
    return (match.group(1) + text[match.end() :], NAMES[match.group(2)]) if match else (text, None)


def unit(text: str) -> tuple[str, str | None]:
    """Split "20 m/s", "12.5 m^2", "7 apples" or "3个" into the number and one name of its unit."""
    match = _TAIL.fullmatch(text)
    if not match:
        return text, None
    number, gap, tail = match.group(1), match.group("gap"), match.group(3)
    if _CHINESE.fullmatch(tail):
        return number, NAMES.get(tail, tail)
    tail = re.sub(r"\^\s?\{\s?([+-]?\d)\s?\}", r"^\1", tail.replace("\\,", " "))
    wrapped = bool(_WRAPPED.search(tail))
    plain = _WRAPPED.sub(
        lambda words: f" {words.group(1)} ", tail.replace("~", " ").replace("\\,", " ").replace("\\ ", " ")
    )
    plain = re.sub(r"\\frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}", r"\1/\2", plain)
    plain = re.sub(r"\^\s?\{\s?\\circ\s?\}\s?|\^\s?\\circ\s?", " degree ", plain)
    plain = re.sub(r"\s+", " ", re.sub(r"\s?\^\s?\{?\s?([+-]?\d)\s?\}?", r"^\1", plain)).strip(" .")
    if _CHINESE.fullmatch(plain):
        return number, NAMES.get(plain, plain)
    known = _compound(plain, wrapped, spaced=bool(gap) or "." in number)
    if known:
        return number, known
    product = not wrapped and plain.lower() in _LETTERS  # "3 xyz" holds no noun
    if _NOUNS.fullmatch(plain) and (gap or wrapped) and not product:
        words = plain.lower().split()
        if not _NO_NOUNS & set(words) and all(len(word) > 2 or word in _ARTICLES for word in words):
            name = " ".join(word.rstrip("s") for word in words if word not in ("old", "of", "a", "an", "the"))
            return number, NAMES.get(name, name)
    return text, None


def compound(words: str) -> str | None:
    """Return the one name of a unit from the list; None for other words."""
    return _compound(words, wrapped=True, spaced=True)


def _compound(text: str, wrapped: bool, spaced: bool) -> str | None:
    powers: dict[str, int] = {}
    sign = 1
    text = re.sub(r"^per ", "/", text).replace(" per ", "/")
    text = re.sub(
        r"\b(square|sq\.?|cubic|cu\.?) (\w+)",
        lambda m: f"{m.group(2)}^{2 if m.group(1)[0] == 's' else 3}",
        text,
    )
    # What is written as a quotient or power of units is one; a letter alone after a number is a variable.
    composed = "/" in text or "degree" in text or ("^" in text and spaced)
    for token in re.findall(
        r"/|[^\s/*]+", text.replace("\\cdot", " ").replace("·", " ").replace("\\mu m", "μm")
    ):
        if token == "/":
            sign = -1
            continue
        name, _, power = token.partition("^")
        known = NAMES.get(name.strip("()")) or (NAMES.get(name.lower()) if len(name) > 3 else None)
        if (
            known is None
            or (name in _SHORT and not (wrapped or composed))
            or not re.fullmatch(r"[+-]?\d|", power)
        ):
            return None
        powers[known] = powers.get(known, 0) + sign * int(power or 1)
    if powers.keys() == {"degree", "C"} or powers.keys() == {"degree", "F"}:
        return "degree " + ("C" if "C" in powers else "F")
    return (
        " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items())) or None
    )
