"""English tables of spoken text, in American style. Only English has rules for every kind of text."""

from __future__ import annotations

from rejoinder.core.reply.spoken.languages.language import Currency, Language, month_numbers
from rejoinder.core.reply.spoken.languages.numerals import Numerals

NUMERALS = Numerals("en", "point")

WORDS = {
    "&": "and",
    "@": "at",
    ".": "dot",
    "/": "slash",
    "\\": "backslash",
    "-": "dash",
    "_": "underscore",
    ":": "colon",
    "#": "hash",
    "number": "number",
    "*": "times",
    "×": "times",
    "·": "times",
    "+": "plus",
    "−": "minus",
    "=": "equals",
    "<": "less than",
    ">": "greater than",
    "≤": "less than or equal to",
    "≥": "greater than or equal to",
    "≠": "is not equal to",
    "≈": "about",
    "~": "about",
    "±": "plus or minus",
    "÷": "divided by",
    "→": "to",
    "^": "to the power of",
    "√": "the square root of",
    "∞": "infinity",
    "%": "percent",
    "‰": "per mille",
    "°": "degrees",
    "§": "section",
    "©": "copyright",
    "to": "to",
    "by": "by",
    "of": "of",
    "over": "over",
    "per": "per",
    "and": "and",
    "squared": "squared",
    "cubed": "cubed",
    "double": "double",
    "fractions": "half/halves third/thirds quarter/quarters",
}

NOTES = {
    "code": "I will not read the code aloud.",
    "long": "a word that is too long to read aloud",
    "script": "some {script} text that I cannot read aloud",
}

SCRIPTS = {
    "han": "Chinese",
    "kana": "Japanese",
    "hangul": "Korean",
    "cyrillic": "Cyrillic",
    "greek": "Greek",
    "arabic": "Arabic",
    "hebrew": "Hebrew",
    "thai": "Thai",
    "devanagari": "Devanagari",
    "latin": "Latin",
    "other": "foreign",
}

ABBREVIATIONS = {
    "mr": "Mister",
    "mrs": "Missus",
    "ms": "Miz",
    "mx": "Mix",
    "prof": "Professor",
    "rev": "Reverend",
    "gen": "General",
    "col": "Colonel",
    "capt": "Captain",
    "lt": "Lieutenant",
    "sgt": "Sergeant",
    "hon": "Honorable",
    "gov": "Governor",
    "sen": "Senator",
    "rep": "Representative",
    "pres": "President",
    "sr": "Senior",
    "jr": "Junior",
    "vs": "versus",
    "cf": "compare",
    "approx": "approximately",
    "fig": "figure",
    "vol": "volume",
    "dept": "department",
    "inc": "Incorporated",
    "ltd": "Limited",
    "corp": "Corporation",
    "ave": "Avenue",
    "blvd": "Boulevard",
    "mt": "Mount",
    "ft": "Fort",
    "est": "established",
    "e.g": "for example",
    "i.e": "that is",
    "a.k.a": "also known as",
    "p.s": "P-S",
    "ph.d": "P-H-D",
    "rd": "Road",
    "ln": "Lane",
    "hwy": "Highway",
    "apt": "apartment",
    "ext": "extension",
    "max": "maximum",
    "min": "minimum",
    "temp": "temperature",
    "mon": "Monday",
    "tue": "Tuesday",
    "tues": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "thurs": "Thursday",
    "fri": "Friday",
    "ed": "edition",
    "pp": "pages",
    "tel": "telephone",
}

PLAIN_ABBREVIATIONS = {
    "and/or": "and or",
    "he/she": "he or she",
    "she/he": "she or he",
    "his/her": "his or her",
    "him/her": "him or her",
    "yes/no": "yes or no",
    "they/them": "they them",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Jr": "Junior",
    "Sr": "Senior",
    "Prof": "Professor",
    "vs": "versus",
    "w/": "with",
    "w/o": "without",
    "etc": "et cetera",
    "aka": "also known as",
    "PhD": "P-H-D",
    "Q&A": "Q and A",
    "R&D": "R and D",
    "AT&T": "A-T and T",
    "FYI": "F-Y-I",
    "ASAP": "A-S-A-P",
    "US": "U-S",
    "BC": "B-C",
    "AD": "A-D",
    "BCE": "B-C-E",
    "CE": "C-E",
    "AM": "AM",
    "PM": "PM",
    "am": "am",
    "pm": "PM",
    "IT": "I-T",
    "OK": "okay",
    "ok": "okay",
    "TBD": "T-B-D",
    "ID": "I-D",
    "EU": "E-U",
}

_DOLLAR = Currency(("dollar", "dollars"), ("cent", "cents"))
_EURO = Currency(("euro", "euros"), ("cent", "cents"))
_POUND = Currency(("pound", "pounds"), ("penny", "pence"))
_YEN = Currency(("yen", "yen"))
_RUPEE = Currency(("rupee", "rupees"), ("paisa", "paise"))
CURRENCIES = {
    "$": _DOLLAR,
    "US$": _DOLLAR,
    "USD": Currency(("U-S dollar", "U-S dollars"), ("cent", "cents")),
    "€": _EURO,
    "EUR": _EURO,
    "£": _POUND,
    "GBP": _POUND,
    "¥": _YEN,
    "JPY": _YEN,
    "₹": _RUPEE,
    "INR": _RUPEE,
    "CHF": Currency(("Swiss franc", "Swiss francs"), ("centime", "centimes")),
    "CAD": Currency(("Canadian dollar", "Canadian dollars"), ("cent", "cents")),
    "C$": Currency(("Canadian dollar", "Canadian dollars"), ("cent", "cents")),
    "AUD": Currency(("Australian dollar", "Australian dollars"), ("cent", "cents")),
    "¢": Currency(("cent", "cents")),
    "₿": Currency(("bitcoin", "bitcoins")),
    "₩": Currency(("won", "won")),
}


def _plural(*names: str) -> dict[str, tuple[str, str]]:
    """Return units from entries such as "km kilometer": the abbreviation and a singular whose plural ends in s."""
    split = (name.split(" ", 1) for name in names)
    return {short: (name, f"{name}s") for short, name in split}


UNITS = {
    **_plural("km kilometer", "m meter", "cm centimeter", "mm millimeter", "kg kilogram", "g gram", "mg milligram"),
    **_plural("lb pound", "lbs pound", "oz ounce", "mi mile", "yd yard", "km² square kilometer", "m² square meter"),
    **_plural("km2 square kilometer", "m2 square meter", "m³ cubic meter", "m3 cubic meter", "ml milliliter"),
    **_plural("mL milliliter", "L liter", "l liter", "ms millisecond", "sec second", "min minute", "mins minute"),
    **_plural(
        "hr hour", "hrs hour", "h hour", "KB kilobyte", "MB megabyte", "GB gigabyte", "TB terabyte", "kB kilobyte"
    ),
    **_plural(
        "W watt",
        "kW kilowatt",
        "MW megawatt",
        "V volt",
        "mA milliamp",
        "px pixel",
        "dB decibel",
        "mg/L milligram per liter",
    ),
    **_plural(
        "kWh kilowatt hour", "mAh milliamp hour", "kcal kilocalorie", "cal calorie", "µm micrometer", "nm nanometer"
    ),
    **_plural(
        "Mbps megabit per second", "yrs year", "yr year", "wk week", "ha hectare", "tbsp tablespoon", "tsp teaspoon"
    ),
    "ft": ("foot", "feet"),
    "sqft": ("square foot", "square feet"),
    "ft²": ("square foot", "square feet"),
    "mph": ("mile per hour", "miles per hour"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "Mbps": ("megabit per second", "megabits per second"),
    "mg/L": ("milligram per liter", "milligrams per liter"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz",) * 2,
    "MHz": ("megahertz",) * 2,
    "GHz": ("gigahertz",) * 2,
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    "%": ("percent", "percent"),
    "‰": ("per mille", "per mille"),
}

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _clock(hour: int, minute: int, half_day_follows: bool) -> str:
    if minute:
        return f"{NUMERALS.cardinal(hour)} {'oh ' if minute < 10 else ''}{NUMERALS.cardinal(minute)}"
    if half_day_follows:
        return NUMERALS.cardinal(hour)
    full = "o'clock" if 0 < hour <= 12 else "hundred"
    return f"{NUMERALS.cardinal(hour)} {full}"


ENGLISH = Language(
    code="en",
    numerals=NUMERALS,
    words=WORDS,
    notes=NOTES,
    scripts=SCRIPTS,
    abbreviations=ABBREVIATIONS,
    plain_abbreviations=PLAIN_ABBREVIATIONS,
    currencies=CURRENCIES,
    units=UNITS,
    magnitudes=frozenset({"hundred", "thousand", "million", "billion", "trillion", "dozen"}),
    short_magnitudes={"k": "thousand", "K": "thousand", "M": "million", "m": "million", "mn": "million"}
    | {"B": "billion", "bn": "billion", "b": "billion", "T": "trillion", "tn": "trillion"},
    months=MONTHS,
    month_numbers=month_numbers(MONTHS, {"sept": 8}),
    one="one",
    clock=_clock,
    day=lambda day, month: f"{month} {NUMERALS.ordinal(day)}",
    native=True,
)
