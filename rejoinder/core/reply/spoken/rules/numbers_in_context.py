"""Rules for integers whose spoken form depends on the words around them: years, days, codes, emergency numbers."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.numerals import Numerals
from rejoinder.core.reply.spoken.rules.view import Reading, View

CODE_WORDS = frozenset(
    [
        "zip",
        "zipcode",
        "postcode",
        "postal",
        "code",
        "pin",
        "id",
        "account",
        "order",
        "ticket",
        "confirmation",
        "reference",
        "tracking",
        "flight",
        "extension",
        "ext",
        "card",
        "serial",
        "passcode",
        "otp",
        "invoice",
        "case",
        "routing",
        "booking",
        "reservation",
        "member",
        "isbn",
        "license",
        "plate",
        "badge",
    ]
)
"""Words before a number that is read digit by digit."""

BETWEEN = frozenset(["number", "no", "is", "code", "the", "#", "nr", "id", "are", "as"])
"""Words that may stand between a code word and its number."""

CALLED = frozenset(["call", "dial", "phone", "text", "number", "ring", "tel", "telephone", "hotline", "at"])
SHORT_NUMBERS = frozenset({"911", "988", "999", "112", "411", "311", "211", "611", "811"})
"""Telephone numbers of three digits. They are read digit by digit behind a word such as "call"; 911 always."""

YEAR_WORDS = frozenset(
    [
        "in",
        "since",
        "until",
        "till",
        "from",
        "by",
        "year",
        "before",
        "after",
        "during",
        "around",
        "circa",
        "late",
        "early",
        "mid",
        "of",
        "to",
        "and",
        "between",
        "summer",
        "winter",
        "spring",
        "fall",
        "autumn",
    ]
)
STATES = {
    "AL": "Alabama",
    "AK": "Alaska",
    "AZ": "Arizona",
    "AR": "Arkansas",
    "CA": "California",
    "CO": "Colorado",
    "CT": "Connecticut",
    "DE": "Delaware",
    "FL": "Florida",
    "GA": "Georgia",
    "HI": "Hawaii",
    "ID": "Idaho",
    "IL": "Illinois",
    "IN": "Indiana",
    "IA": "Iowa",
    "KS": "Kansas",
    "KY": "Kentucky",
    "LA": "Louisiana",
    "ME": "Maine",
    "MD": "Maryland",
    "MA": "Massachusetts",
    "MI": "Michigan",
    "MN": "Minnesota",
    "MS": "Mississippi",
    "MO": "Missouri",
    "MT": "Montana",
    "NE": "Nebraska",
    "NV": "Nevada",
    "NH": "New Hampshire",
    "NJ": "New Jersey",
    "NM": "New Mexico",
    "NY": "New York",
    "NC": "North Carolina",
    "ND": "North Dakota",
    "OH": "Ohio",
    "OK": "Oklahoma",
    "OR": "Oregon",
    "PA": "Pennsylvania",
    "RI": "Rhode Island",
    "SC": "South Carolina",
    "SD": "South Dakota",
    "TN": "Tennessee",
    "TX": "Texas",
    "UT": "Utah",
    "VT": "Vermont",
    "VA": "Virginia",
    "WA": "Washington",
    "WV": "West Virginia",
    "WI": "Wisconsin",
    "WY": "Wyoming",
    "DC": "D-C",
}


def bare_number(view: View, figures: str, *, signed: bool) -> Reading:
    """Return the spoken form of an integer without separators, unit or currency.

    Args:
        view: The integer, which is read next, and the words around it.
        figures: The digits.
        signed: Whether a sign ("-", "+") stands before the integer, so that it is a quantity, not a year or a code.
    """
    language = view.language
    numerals, value = language.numerals, int(figures)
    assert numerals
    if signed:
        return Reading((numerals.decimal(figures, ""),))
    if (day := _day(view, value)) is not None:
        return day
    if figures[0] == "0" and len(figures) > 1:
        return Reading((numerals.digits(figures),))
    if len(figures) >= 13 or (len(figures) >= 10 and not figures.endswith("000")):
        return Reading((grouped_digits(numerals, figures),))
    if language.native:
        return Reading((_english(view, numerals, figures),))
    return Reading((numerals.cardinal(value),))


def grouped_digits(numerals: Numerals, figures: str) -> str:
    """Return the words of the digits one by one, with a comma between groups.

    Groups are those of American telephone numbers for 7, 10 and 11 digits (3-3-4 for 10), and 4 digits otherwise.
    """
    sizes = {10: (3, 3, 4), 11: (1, 3, 3, 4), 7: (3, 4)}.get(len(figures), (4,) * (len(figures) // 4 + 1))
    groups, at = [], 0
    for size in sizes:
        groups.append(figures[at : at + size])
        at += size
    return ", ".join(numerals.digits(group) for group in groups if group)


def _day(view: View, value: int) -> Reading | None:
    """Return the spoken form of the day in "May 5" or "5 May"; None if it is not a day.

    A number is a day if a month's name is next to it. A German ordinal number before certain nouns ("3. Stock") is read
    here too, because it is written like a day.
    """
    language = view.language
    numerals, previous = language.numerals, view.previous()
    assert numerals
    if not 1 <= value <= 31:
        return None
    if language.code == "en" and language.month(previous.core) is not None and previous.closing in {"", "."}:
        return Reading((numerals.ordinal(value),))
    dotted = language.code == "de" and view.token.closing == "."
    month = view.word(1) if dotted else view.following()
    if language.month(month.core) is None or language.code == "es":
        return _german_ordinal(view, value, month.core) if dotted else None
    name = language.months[language.month(month.core) or 0]
    if language.code == "en":
        article = "" if previous.core.lower() == "the" else "the "
        return Reading((f"{article}{numerals.ordinal(value)} of", name), stop=len(month.core) > 3)
    if language.code == "de":
        ending = "n" if previous.core.lower() in {"am", "vom", "dem", "den", "zum", "beim", "im"} else "r"
        return Reading((numerals.ordinal(value) + ending, name))
    return Reading(("premier" if value == 1 else numerals.cardinal(value), name))


def _german_ordinal(view: View, value: int, noun: str) -> Reading | None:
    if noun not in {"Platz", "Stock", "Klasse", "Jahrhundert", "Mal", "Kapitel", "Etage", "Tag", "Juli"}:
        return None
    assert view.language.numerals
    ending = "n" if view.previous().core.lower() in {"am", "im", "zum", "den", "dem", "beim"} else ""
    return Reading((view.language.numerals.ordinal(value) + ending, noun))


def _english(view: View, numerals: Numerals, figures: str) -> str:
    previous = view.previous().core.lower().rstrip(":")
    if figures == "911" or (figures in SHORT_NUMBERS and previous in CALLED):
        return numerals.digits(figures)
    if len(figures) >= 3 and (_is_code(view) or (len(figures) == 5 and view.previous().core in STATES)):
        return numerals.digits(figures)
    return numerals.year(int(figures)) if _is_year(view, figures) else numerals.cardinal(int(figures))


def _is_code(view: View) -> bool:
    """Return True if a word such as "zipcode" comes before the number, so its digits are spoken one by one.

    Up to three joining words, such as "is", may stand between them.
    """
    for back in range(1, 5):
        word = view.previous(back).core.lower()
        if word in CODE_WORDS:
            return True
        if word not in BETWEEN:
            return False
    return False


def _is_year(view: View, figures: str) -> bool:
    """Return True if four digits are a year. Numbers from 1000 to 1899 are years only by the words around them."""
    if not re.fullmatch(r"1[0-9]\d\d|20\d\d", figures):
        return False
    previous, language = view.previous().core.lower(), view.language
    if language.month(view.previous().core) is not None or language.month(view.previous(2).core) is not None:
        return True
    if view.following().core in {"AD", "BC", "CE", "BCE"}:
        return True
    if "1900" <= figures <= "2099":
        return True
    return previous in YEAR_WORDS - {"of", "to", "and", "from", "by"} or "(" in view.token.opening
