"""Spanish tables of spoken text: numbers, money, units, times and dates."""

from __future__ import annotations

from rejoinder.core.reply.spoken.languages.language import Currency, Language, month_numbers
from rejoinder.core.reply.spoken.languages.numerals import Numerals

NUMERALS = Numerals("es", "coma")
WORDS = {
    "&": "y",
    "@": "arroba",
    ".": "punto",
    "/": "barra",
    "-": "guion",
    "_": "guion bajo",
    ":": "dos puntos",
    "#": "almohadilla",
    "number": "número",
    "*": "por",
    "×": "por",
    "·": "por",
    "+": "más",
    "−": "menos",
    "=": "igual a",
    "<": "menor que",
    ">": "mayor que",
    "≤": "menor o igual que",
    "≥": "mayor o igual que",
    "≠": "distinto de",
    "≈": "aproximadamente",
    "~": "aproximadamente",
    "±": "más menos",
    "÷": "entre",
    "→": "a",
    "^": "elevado a",
    "√": "raíz de",
    "∞": "infinito",
    "%": "por ciento",
    "°": "grados",
    "to": "a",
    "by": "por",
    "of": "de",
    "over": "entre",
    "per": "por",
    "and": "y",
    "squared": "al cuadrado",
    "cubed": "al cubo",
}
NOTES = {
    "code": "No voy a leer el código en voz alta.",
    "long": "una palabra demasiado larga para leerla",
    "script": "un texto en una escritura que no puedo leer",
}
ABBREVIATIONS = {
    "sr": "señor",
    "sra": "señora",
    "srta": "señorita",
    "dr": "doctor",
    "dra": "doctora",
    "d": "don",
    "ud": "usted",
    "uds": "ustedes",
    "p.ej": "por ejemplo",
    "aprox": "aproximadamente",
    "av": "avenida",
    "núm": "número",
    "tel": "teléfono",
    "ee.uu": "Estados Unidos",
    "pág": "página",
    "prof": "profesor",
}
_EURO = Currency(("euro", "euros"), ("céntimo", "céntimos"))
_DOLLAR = Currency(("dólar", "dólares"), ("centavo", "centavos"))
CURRENCIES = {
    "€": _EURO,
    "EUR": _EURO,
    "$": _DOLLAR,
    "USD": _DOLLAR,
    "£": Currency(("libra", "libras"), ("penique", "peniques")),
}
UNITS = {
    short: (name, f"{name}s")
    for short, name in {
        "km": "kilómetro",
        "m": "metro",
        "cm": "centímetro",
        "mm": "milímetro",
        "kg": "kilogramo",
        "g": "gramo",
        "mg": "miligramo",
        "ml": "mililitro",
        "l": "litro",
        "min": "minuto",
        "GB": "gigabyte",
        "MB": "megabyte",
    }.items()
} | {
    "km/h": ("kilómetro por hora", "kilómetros por hora"),
    "°C": ("grado Celsius", "grados Celsius"),
    "°": ("grado", "grados"),
    "%": ("por ciento",) * 2,
    "h": ("hora", "horas"),
    "m²": ("metro cuadrado", "metros cuadrados"),
    "km²": ("kilómetro cuadrado", "kilómetros cuadrados"),
}
MONTHS = (
    "enero",
    "febrero",
    "marzo",
    "abril",
    "mayo",
    "junio",
    "julio",
    "agosto",
    "septiembre",
    "octubre",
    "noviembre",
    "diciembre",
)


def _clock(hour: int, minute: int, _: bool) -> str:
    hours = "una" if hour == 1 else NUMERALS.cardinal(hour)
    return f"{hours} y {NUMERALS.cardinal(minute)}" if minute else f"{hours} en punto"


SPANISH = Language(
    code="es",
    numerals=NUMERALS,
    decimal=",",
    thousands=".",
    words=WORDS,
    notes=NOTES,
    abbreviations=ABBREVIATIONS,
    plain_abbreviations={"etc": "etcétera"},
    currencies=CURRENCIES,
    units=UNITS,
    magnitudes=frozenset({"mil", "millón", "millones"}),
    months=MONTHS,
    month_numbers=month_numbers(MONTHS),
    one="un",
    clock=_clock,
    day=lambda day, month: f"{NUMERALS.cardinal(day)} de {month}",
)
