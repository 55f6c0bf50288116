"""German tables of spoken text: numbers, money, units, times and dates. There are no rules for years and fractions."""

from __future__ import annotations

from rejoinder.core.reply.spoken.languages.language import Currency, Language, month_numbers
from rejoinder.core.reply.spoken.languages.numerals import Numerals

NUMERALS = Numerals("de", "Komma")
WORDS = {
    "&": "und",
    "@": "ät",
    ".": "Punkt",
    "/": "Schrägstrich",
    "-": "Bindestrich",
    "_": "Unterstrich",
    ":": "Doppelpunkt",
    "#": "Raute",
    "number": "Nummer",
    "*": "mal",
    "×": "mal",
    "·": "mal",
    "+": "plus",
    "−": "minus",
    "=": "gleich",
    "<": "kleiner als",
    ">": "größer als",
    "≤": "kleiner gleich",
    "≥": "größer gleich",
    "≠": "ungleich",
    "≈": "ungefähr",
    "~": "ungefähr",
    "±": "plus minus",
    "÷": "geteilt durch",
    "→": "nach",
    "%": "Prozent",
    "^": "hoch",
    "√": "Wurzel aus",
    "∞": "unendlich",
    "°": "Grad",
    "§": "Paragraph",
    "to": "bis",
    "by": "mal",
    "of": "von",
    "over": "durch",
    "per": "pro",
    "and": "und",
    "squared": "Quadrat",
    "cubed": "hoch drei",
}
NOTES = {
    "code": "Den Programmtext lese ich nicht vor.",
    "long": "ein Wort, das zum Vorlesen zu lang ist",
    "script": "ein Text in einer Schrift, die ich nicht vorlesen kann",
}
ABBREVIATIONS = {
    "dr": "Doktor",
    "prof": "Professor",
    "hr": "Herr",
    "fr": "Frau",
    "z.b": "zum Beispiel",
    "d.h": "das heißt",
    "u.a": "unter anderem",
    "bzw": "beziehungsweise",
    "ca": "circa",
    "nr": "Nummer",
    "str": "Straße",
    "st": "Sankt",
    "inkl": "inklusive",
    "evtl": "eventuell",
    "ggf": "gegebenenfalls",
    "z": "zum",
    "vgl": "vergleiche",
    "tel": "Telefon",
}
_EURO = Currency(("Euro", "Euro"), ("Cent", "Cent"))
_DOLLAR = Currency(("Dollar", "Dollar"), ("Cent", "Cent"))
CURRENCIES = {
    "€": _EURO,
    "EUR": _EURO,
    "$": _DOLLAR,
    "USD": _DOLLAR,
    "£": Currency(("Pfund", "Pfund"), ("Penny", "Pence")),
    "CHF": Currency(("Franken", "Franken"), ("Rappen", "Rappen")),
    "¥": Currency(("Yen", "Yen")),
}
UNITS = {
    short: (name, name)
    for short, name in {
        "km": "Kilometer",
        "m": "Meter",
        "cm": "Zentimeter",
        "mm": "Millimeter",
        "kg": "Kilogramm",
        "g": "Gramm",
        "mg": "Milligramm",
        "ml": "Milliliter",
        "l": "Liter",
        "km/h": "Kilometer pro Stunde",
        "°C": "Grad Celsius",
        "°": "Grad",
        "%": "Prozent",
        "m²": "Quadratmeter",
        "km²": "Quadratkilometer",
        "GB": "Gigabyte",
        "MB": "Megabyte",
        "kWh": "Kilowattstunden",
        "kW": "Kilowatt",
        "W": "Watt",
        "Hz": "Hertz",
        "V": "Volt",
    }.items()
} | {"Std": ("Stunde", "Stunden"), "min": ("Minute", "Minuten"), "Min": ("Minute", "Minuten")}
MONTHS = (
    "Januar",
    "Februar",
    "März",
    "April",
    "Mai",
    "Juni",
    "Juli",
    "August",
    "September",
    "Oktober",
    "November",
    "Dezember",
)


def _clock(hour: int, minute: int, _: bool) -> str:
    hours = "ein" if hour == 1 else NUMERALS.cardinal(hour)
    return f"{hours} Uhr {NUMERALS.cardinal(minute)}" if minute else f"{hours} Uhr"


GERMAN = Language(
    code="de",
    numerals=NUMERALS,
    decimal=",",
    thousands=".",
    words=WORDS,
    notes=NOTES,
    abbreviations=ABBREVIATIONS,
    plain_abbreviations={"usw": "und so weiter"},
    currencies=CURRENCIES,
    units=UNITS,
    magnitudes=frozenset({"tausend", "million", "millionen", "milliarde", "milliarden"}),
    months=MONTHS,
    month_numbers=month_numbers(MONTHS),
    one="ein",
    clock=_clock,
    day=lambda day, month: f"{NUMERALS.ordinal(day)}r {month}",
    clock_words=frozenset({"uhr"}),
)
