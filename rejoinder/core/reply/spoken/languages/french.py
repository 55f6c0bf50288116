"""French tables of spoken text: numbers, money, units, times and dates."""

from __future__ import annotations

from rejoinder.core.reply.spoken.languages.language import Currency, Language, month_numbers
from rejoinder.core.reply.spoken.languages.numerals import Numerals

NUMERALS = Numerals("fr", "virgule")
WORDS = {
    "&": "et",
    "@": "arobase",
    ".": "point",
    "/": "barre oblique",
    "-": "tiret",
    "_": "tiret bas",
    ":": "deux points",
    "#": "dièse",
    "number": "numéro",
    "*": "fois",
    "×": "fois",
    "·": "fois",
    "+": "plus",
    "−": "moins",
    "=": "égale",
    "<": "inférieur à",
    ">": "supérieur à",
    "≤": "inférieur ou égal à",
    "≥": "supérieur ou égal à",
    "≠": "différent de",
    "≈": "environ",
    "~": "environ",
    "±": "plus ou moins",
    "÷": "divisé par",
    "→": "vers",
    "^": "puissance",
    "√": "racine de",
    "∞": "infini",
    "%": "pour cent",
    "°": "degrés",
    "to": "à",
    "by": "par",
    "of": "de",
    "over": "sur",
    "per": "par",
    "and": "et",
    "squared": "au carré",
    "cubed": "au cube",
}
NOTES = {
    "code": "Je ne lis pas le code à voix haute.",
    "long": "un mot trop long pour être lu",
    "script": "un texte dans une écriture que je ne peux pas lire",
}
ABBREVIATIONS = {
    "m": "monsieur",
    "p.ex": "par exemple",
    "env": "environ",
    "av": "avenue",
    "bd": "boulevard",
    "tél": "téléphone",
    "c.-à-d": "c'est-à-dire",
    "prof": "professeur",
    "dr": "docteur",
}
_EURO = Currency(("euro", "euros"), ("centime", "centimes"))
_DOLLAR = Currency(("dollar", "dollars"), ("cent", "cents"))
CURRENCIES = {
    "€": _EURO,
    "EUR": _EURO,
    "$": _DOLLAR,
    "USD": _DOLLAR,
    "£": Currency(("livre", "livres"), ("penny", "pence")),
}
UNITS = {
    short: (name, f"{name}s")
    for short, name in {
        "km": "kilomètre",
        "m": "mètre",
        "cm": "centimètre",
        "mm": "millimètre",
        "kg": "kilogramme",
        "g": "gramme",
        "mg": "milligramme",
        "ml": "millilitre",
        "l": "litre",
        "min": "minute",
        "Go": "gigaoctet",
        "Mo": "mégaoctet",
    }.items()
} | {
    "km/h": ("kilomètre à l'heure", "kilomètres à l'heure"),
    "°C": ("degré Celsius", "degrés Celsius"),
    "°": ("degré", "degrés"),
    "%": ("pour cent",) * 2,
    "m²": ("mètre carré", "mètres carrés"),
    "km²": ("kilomètre carré", "kilomètres carrés"),
}
MONTHS = (
    "janvier",
    "février",
    "mars",
    "avril",
    "mai",
    "juin",
    "juillet",
    "août",
    "septembre",
    "octobre",
    "novembre",
    "décembre",
)


def _clock(hour: int, minute: int, _: bool) -> str:
    if hour in {0, 1, 21}:
        hours = {0: "zéro heure", 1: "une heure", 21: "vingt et une heures"}[hour]
    else:
        hours = f"{NUMERALS.cardinal(hour)} heures"
    return f"{hours} {NUMERALS.cardinal(minute)}" if minute else hours


FRENCH = Language(
    code="fr",
    numerals=NUMERALS,
    decimal=",",
    thousands=".  ",
    words=WORDS,
    notes=NOTES,
    abbreviations=ABBREVIATIONS,
    plain_abbreviations={"etc": "et cetera", "Mme": "madame", "Mlle": "mademoiselle", "Dr": "docteur"},
    currencies=CURRENCIES,
    units=UNITS,
    magnitudes=frozenset({"mille", "million", "millions", "milliard", "milliards"}),
    months=MONTHS,
    month_numbers=month_numbers(MONTHS),
    one="un",
    clock=_clock,
    day=lambda day, month: f"{'premier' if day == 1 else NUMERALS.cardinal(day)} {month}",
)
