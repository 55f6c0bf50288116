"""Rules for quantities: numbers with their sign, unit, currency or magnitude, ranges, fractions and operators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rejoinder.core.reply.spoken.languages.language import Forms, Language
from rejoinder.core.reply.spoken.rules.numbers_in_context import bare_number
from rejoinder.core.reply.spoken.rules.view import Reading, Token, View

SIGNS = "-−–+±~≈<>≤≥"
DASHES = "-–—−"
NOT_UNITS_ALONE = frozenset({"h", "l", "m", "g", "min", "°", "cal", "W", "V", "ha", "sec"})
"""Abbreviations that are units only directly behind a number, or behind a number and a space if nothing else fits."""

VULGAR = {
    "½": (1, 2),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅕": (1, 5),
    "⅛": (1, 8),
    "⅜": (3, 8),
    "⅝": (5, 8),
}
SAYINGS = {"24/7": "twenty-four seven", "9/11": "nine eleven"}
FRACTIONS = {2: ("half", "halves"), 3: ("third", "thirds"), 4: ("quarter", "quarters"), 5: ("fifth", "fifths")} | {
    6: ("sixth", "sixths"),
    8: ("eighth", "eighths"),
    16: ("sixteenth", "sixteenths"),
    32: ("thirty-second", "thirty-seconds"),
}
_OPERAND = re.compile(r"[-−+$€£(]?\d.*|[b-hj-z]|π")
_EQUATION = re.compile(r"[\w().²³π√]+(?:[-+−=<>*×·÷^≤≥≠≈/][\w().²³π√]+)+")


@lru_cache(maxsize=8)
def number_pattern(decimal: str, thousands: str) -> str:
    """Return the regular expression, without groups, of a number with these decimal and thousands separators."""
    point, comma = re.escape(decimal), f"[{re.escape(thousands)}]"
    return rf"(?:\d{{1,3}}(?:{comma}\d{{3}})+|\d+)(?:{point}\d+)?|{point}\d+"


@lru_cache(maxsize=8)
def _quantity(code: str, decimal: str, thousands: str, currencies: tuple[str, ...]) -> re.Pattern[str]:
    number = number_pattern(decimal, thousands)
    money = "|".join(re.escape(sign) for sign in sorted(currencies, key=len, reverse=True))
    return re.compile(
        rf"(?P<sign>[{SIGNS}]?)(?P<money>{money})?(?P<low>{number})"
        rf"(?:[{DASHES}](?:{money})?(?P<high>{number}))?(?P<rest>.*)"
    )


@dataclass(frozen=True, slots=True)
class _Amount:
    """Parts of a quantity in figures: sign, currency sign, number, second number of a range, characters after it."""

    sign: str
    money: str
    low: str
    high: str
    rest: str


def quantity(view: View) -> Reading | None:
    """Return the spoken form of a number with the next words that belong to it ("$5 million", "5 km"), or None."""
    language = view.language
    if not language.numerals:
        return None
    pattern = _quantity(language.code, language.decimal, language.thousands, tuple(language.currencies))
    match = pattern.fullmatch(view.token.core)
    if not match:
        return None
    amount = _Amount(*(match[name] or "" for name in ("sign", "money", "low", "high", "rest")))
    sign = {"": "", "-": view.say("−"), "–": view.say("−")}.get(amount.sign, view.say(amount.sign))
    reading = _money(view, amount) if amount.money else _measure(view, amount)
    if reading is None:
        return None
    return Reading((f"{sign} {reading.spoken[0]}".strip(), *reading.spoken[1:]), reading.edge, reading.stop)


def value_words(language: Language, figures: str) -> str:
    """Return the words of a number in figures, written with the language's separators (English "1,234.5")."""
    assert language.numerals
    whole, _, fraction = figures.partition(language.decimal)
    return language.numerals.decimal(re.sub(r"\D", "", whole), fraction)


def named_currency(view: View) -> Reading | None:
    """Return the spoken form of a currency code before an amount ("USD 20.50"); None for other words."""
    language, core = view.language, view.token.core
    if not language.numerals or not core.isalpha() or core not in language.currencies:
        return None
    number = view.following().core
    if not re.fullmatch(number_pattern(language.decimal, language.thousands), number):
        return None
    return Reading(("", _price(view, _Amount(sign="", money=core, low=number, high="", rest=""), core)))


def _range_words(view: View, amount: _Amount) -> str:
    low = value_words(view.language, amount.low)
    return f"{low} {view.say('to')} {value_words(view.language, amount.high)}" if amount.high else low


def _counted(view: View, amount: _Amount, forms: Forms) -> tuple[str, str]:
    """Return the words of a number or range, and the singular or plural (`forms`) of the noun after it."""
    if not amount.high and amount.low == "1":
        return view.language.one, forms[0]
    return _range_words(view, amount), forms[1]


def _money(view: View, amount: _Amount) -> Reading | None:
    """Return the spoken form of an amount after a currency sign ("$5.50", "$5M", "$5/month"), or None."""
    language = view.language
    forms = language.currencies[amount.money].major
    if scale := language.short_magnitudes.get(amount.rest):
        return Reading((f"{_range_words(view, amount)} {scale} {forms[1]}",))
    per = ""
    if amount.rest.startswith("/") and amount.rest[1:].isalpha():
        per = f" {view.say('per')} {language.units.get(amount.rest[1:], (amount.rest[1:],))[0]}"
    elif amount.rest == "+":
        per = f" {view.say('+')}"
    elif amount.rest:
        return None
    following = view.following()
    if not per and following.core.lower() in language.magnitudes:
        return Reading((_range_words(view, amount), f"{following.core} {forms[1]}"))
    return Reading((_price(view, amount, amount.money) + per,))


def _price(view: View, amount: _Amount, money: str) -> str:
    """Return the words of an amount in the currency `money` (sign or code), such as "three dollars and fifty cents"."""
    currency, language = view.language.currencies[money], view.language
    assert language.numerals
    whole, _, fraction = amount.low.partition(language.decimal)
    if amount.high or not currency.minor or len(fraction) != 2:
        return " ".join(_counted(view, amount, currency.major))
    units, cents = int(re.sub(r"\D", "", whole) or "0"), int(fraction)
    major = f"{language.one if units == 1 else language.numerals.cardinal(units)} {currency.major[units != 1]}"
    minor = f"{language.one if cents == 1 else language.numerals.cardinal(cents)} {currency.minor[cents != 1]}"
    if not cents:
        return major
    return f"{major} {view.say('and')} {minor}" if units else minor


def _measure(view: View, amount: _Amount) -> Reading | None:
    """Return the spoken form of a number without a currency sign before it. A unit or currency may follow."""
    if amount.rest:
        return _with_suffix(view, amount)
    following = view.following()
    core, language = following.core, view.language
    if core.lower() in language.magnitudes:
        return _magnitude(view, amount, core)
    if core in language.currencies:
        return Reading((_price(view, amount, core), ""))
    if core in language.units and not _is_word(view, following):
        return Reading(_counted(view, amount, language.units[core]))
    if amount.high or view.language.decimal in amount.low or not amount.low.isdecimal():
        return Reading((_years(view, amount) or _range_words(view, amount),))
    return bare_number(view, amount.low, signed=bool(amount.sign))


def _magnitude(view: View, amount: _Amount, core: str) -> Reading:
    """Return the spoken form of a number and its magnitude ("5 million"), with a currency code after it.

    Args:
        view: The words that are read next.
        amount: The number.
        core: The word for the magnitude, such as "million".
    """
    number, language = _range_words(view, amount), view.language
    code = view.following(2).core
    if code in language.currencies:
        return Reading((number, core, language.currencies[code].major[1]))
    return Reading((language.one if amount.low == "1" else number, core))


def _is_word(view: View, token: Token) -> bool:
    """Return True if a word after a number looks like the abbreviation of a unit, but is probably another word."""
    return token.core in NOT_UNITS_ALONE - {"min", "m", "g", "sec"} or (
        token.core == "m" and view.language.code == "fr"
    )


def _with_suffix(view: View, amount: _Amount) -> Reading | None:
    language, rest = view.language, amount.rest
    assert language.numerals
    if rest in language.units:
        return Reading((" ".join(_counted(view, amount, language.units[rest])),))
    if rest in language.currencies:
        return Reading((_price(view, amount, rest),))
    if ordinal := _ordinal(view, amount):
        return Reading((ordinal,))
    if rest == "+":
        return Reading((f"{_range_words(view, amount)} {view.say('+')}",))
    if rest[0] == "/" and rest[1:] in language.units:
        return Reading((f"{_range_words(view, amount)} {view.say('per')} {language.units[rest[1:]][0]}",))
    if language.code == "en" and rest in {"x", "X", "×"}:
        return Reading((f"{_range_words(view, amount)} times",))
    if language.code == "en" and (
        scale := {"k": "thousand", "K": "thousand", "M": "million", "B": "billion"}.get(rest)
    ):
        return Reading((f"{_range_words(view, amount)} {scale}",))
    if rest[1:] in language.units and rest[0] in DASHES:
        return Reading((f"{_range_words(view, amount)} {language.units[rest[1:]][0]}",))
    if rest in VULGAR and view.say("and"):
        return Reading((f"{_range_words(view, amount)} {view.say('and')} {fraction_words(view, *VULGAR[rest])}",))
    if re.fullmatch(rf"[{DASHES}][^\W\d_][\w'-]*", rest):  # a noun with a number, such as "5-year-old" or "3-month"
        return Reading((f"{_range_words(view, amount)} {rest[1:].replace('-', ' ')}",))
    return None


def _ordinal(view: View, amount: _Amount) -> str:
    """Return the words of an ordinal number or a decade ("1st", "1990s"); "" for others."""
    language, rest = view.language, amount.rest.lower()
    assert language.numerals
    if not amount.low.replace(",", "").isdecimal():
        return ""
    value = int(amount.low.replace(",", ""))
    endings = {"en": {"st", "nd", "rd", "th"}, "fr": {"er", "re", "e", "ère", "ème"}, "es": {"º", "ª", "o"}}
    if rest in endings.get(language.code, ()):
        return language.numerals.ordinal(value)
    if language.code == "en" and rest in {"s", "'s", "’s"} and value % 10 == 0:
        words = language.numerals.year(value)
        return f"{words[:-1]}ies" if words.endswith("y") else "two thousands" if value == 2000 else f"{words}s"
    return ""


def _years(view: View, amount: _Amount) -> str:
    """Return the words of a range of years ("1914-1918"); "" if the numbers are not years."""
    numerals, low, high = view.language.numerals, amount.low, amount.high
    if not (numerals and high and re.fullmatch(r"1[1-9]\d\d|20\d\d", low)):
        return ""
    if len(high) == 4 and int(low) < int(high) < 2200:
        return f"{numerals.year(int(low))} {view.say('to')} {numerals.year(int(high))}"
    return f"{numerals.year(int(low))} {view.say('to')} {numerals.cardinal(int(high))}" if len(high) == 2 else ""


def fraction(view: View) -> Reading | None:
    """Return the spoken form of a fraction ("3/4", "½", "8/10", "24/7") or of a ratio ("3:1"); None for other words."""
    language, core = view.language, view.token.core
    if not language.numerals:
        return None
    if ratio := re.fullmatch(r"(\d{1,4}):(\d{1,4})", core):
        return Reading((f"{value_words(language, ratio[1])} {view.say('to')} {value_words(language, ratio[2])}",))
    match = re.fullmatch(r"(\d{1,3})[/⁄](\d{1,4})", core)
    numbers = (int(match[1]), int(match[2])) if match else VULGAR.get(core)
    if not numbers:
        return None
    if language.native and core in SAYINGS:
        return Reading((SAYINGS[core],))
    joined = f"{view.say('and')} " if view.previous().core.isdecimal() and not view.previous().pauses else ""
    return Reading((joined + fraction_words(view, *numbers),))


def fraction_words(view: View, top: int, bottom: int) -> str:
    """Return the words of the fraction `top` / `bottom`, such as "three quarters" or "eight out of ten"."""
    numerals = view.language.numerals
    assert numerals
    if not view.language.native:
        return f"{numerals.cardinal(top)} {view.say('over')} {numerals.cardinal(bottom)}"
    if bottom in FRACTIONS and top < bottom:
        return f"{numerals.cardinal(top)} {FRACTIONS[bottom][top != 1]}"
    joint = " " if top == bottom else " out of " if bottom in {5, 10, 100} and top < bottom else " over "
    return f"{numerals.cardinal(top)}{joint}{numerals.cardinal(bottom)}"


def operator(view: View) -> Reading | None:
    """Return the spoken form of a sign that is a word of its own ("5 - 3", "a < b", "3 x 5"), or None."""
    core = view.token.core
    if core in {"x", "X"}:
        return Reading((view.say("×"),)) if _between_operands(view) else None
    if core == "*" and not _between_operands(view):
        return Reading(("",))
    if core in DASHES or core in {"--", "---"}:
        return Reading((_dash(view),)) if core and _between_operands(view) else None
    if core in {"/", ":"}:
        return Reading((view.say("÷"),)) if _between_operands(view) else Reading((",",))
    return Reading((view.say(core),)) if core in "*×·+=<>≤≥≠≈±÷→^&@%~" and len(core) == 1 else None


def _between_operands(view: View) -> bool:
    if not _OPERAND.fullmatch(view.previous().core) or view.previous().pauses:
        return False
    return bool(_OPERAND.fullmatch(view.word(1).core))


def _dash(view: View) -> str:
    """Return the word for a dash between two numbers: "to" in a range, "minus" in a subtraction.

    A smaller number before a larger one is a range, unless an equals sign follows. Two times, or two amounts of money,
    are always a range.
    """
    before, after = view.previous().core, view.word(1)
    if not (before.isdecimal() and after.core.isdecimal()):
        timed = re.search(r":\d\d|[ap]\.?m$", before + after.core)
        money = before[:1] in "$€£" and after.core[:1] == before[:1]
        return view.say("to") if timed or money else view.say("−")
    if int(before) >= int(after.core) or (not after.pauses and view.word(2).core in {"=", "is", "equals"}):
        return view.say("−")
    return view.say("to")


def dimensions(view: View) -> Reading | None:
    """Return the spoken form of a size ("1920x1080", "3x4 m") or of a height (5'11"); None for other words."""
    language = view.language
    if language.native and (height := re.fullmatch(r"(\d)['’′](\d{1,2})[\"”″]?", view.token.core)):
        return Reading((f"{value_words(language, height[1])} foot {value_words(language, height[2])}",))
    match = re.fullmatch(r"(\d+(?:[.,]\d+)?(?:x\d+(?:[.,]\d+)?)+)(\D*)", view.token.core)
    if not match or not language.numerals:
        return None
    words = f" {view.say('by')} ".join(_size(language, part) for part in match[1].split("x"))
    if not match[2]:
        unit = language.units.get(view.following().core)
        return Reading((words, unit[1]) if unit and view.following().core.isalpha() else (words,))
    return Reading((f"{words} {language.units[match[2]][1]}",)) if match[2] in language.units else None


def _size(language: Language, figures: str) -> str:
    assert language.numerals
    pairs = language.native and len(figures) == 4 and figures.isdecimal() and figures[2] != "0"
    return language.numerals.year(int(figures)) if pairs else value_words(language, figures)


def equation(view: View) -> Reading | None:
    """Return the spoken form of a formula without spaces ("2+2=4", "x<5", "E=mc²"); None for other words."""
    core = view.token.core
    operators = re.search(r"[+=<>*×÷^≤≥≠≈²³√π]", core.strip("+"))
    if not operators or not (_EQUATION.fullmatch(core) or re.fullmatch(r"\w{1,3}[²³]|√\w+|\d*π\w*", core)):
        return None
    return Reading((formula_words(view, core),))


def formula_words(view: View, text: str) -> str:
    """Return the words of a formula without LaTeX. One or two letters together are spelled, as names of variables."""
    spoken: list[str] = []
    for part in re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_²³]+|\S", text.replace("**", "^")):
        if part[0].isdecimal():
            spoken.append(value_words(view.language, part))
        elif part in "²³":
            spoken.append(view.say("squared" if part == "²" else "cubed"))
        elif part == "π":
            spoken.append("pi")
        elif part.isalpha():
            spoken.append(
                " ".join(part) if len(part) <= 2 and part not in {"is", "in", "of", "to", "or", "pi"} else part
            )
        else:
            spoken.append({"-": view.say("−"), "/": view.say("over")}.get(part, "" if part == "." else view.say(part)))
    words = " ".join(filter(None, spoken))
    for power, name in ((2, "squared"), (3, "cubed")):
        if view.language.numerals and view.say(name):
            pattern = rf"{re.escape(view.say('^'))} {view.language.numerals.cardinal(power)}\b"
            words = re.sub(pattern, view.say(name), words)
    return words
