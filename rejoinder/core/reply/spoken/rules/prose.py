"""Rules for words: abbreviations, initials, roman numerals, and every word for which no other rule exists."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.rules.identifiers import spell
from rejoinder.core.reply.spoken.rules.numbers_in_context import STATES
from rejoinder.core.reply.spoken.rules.view import Reading, View
from rejoinder.core.reply.spoken.units import WordBoundary

INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?\.?")
COUNTED_BY_ROMAN = frozenset(
    [
        "war",
        "chapter",
        "part",
        "act",
        "section",
        "volume",
        "book",
        "appendix",
        "phase",
        "type",
        "class",
        "title",
        "level",
        "grade",
        "stage",
        "bowl",
        "episode",
        "article",
        "rocky",
        "fantasy",
        "scene",
        "figure",
        "table",
        "step",
        "unit",
        "tier",
    ]
)
"""Words before a roman numeral that is a cardinal number ("World War two"); behind names it is an ordinal number."""

REGNAL = frozenset(
    [
        "henry",
        "louis",
        "elizabeth",
        "george",
        "charles",
        "edward",
        "richard",
        "james",
        "william",
        "pius",
        "paul",
        "napoleon",
        "alexander",
        "catherine",
        "frederick",
        "nicholas",
        "peter",
        "ivan",
        "philip",
        "francis",
        "benedict",
        "leo",
        "gregory",
        "ramses",
        "mary",
        "xerxes",
        "darius",
        "otto",
        "ferdinand",
        "john",
        "urban",
        "innocent",
        "clement",
        "wilhelm",
        "friedrich",
    ]
)
_ROMAN = re.compile(r"(X{0,3})(IX|IV|V?I{0,3})")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


TITLES = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "mx",
        "dr",
        "prof",
        "rev",
        "gen",
        "col",
        "capt",
        "lt",
        "sgt",
        "hon",
        "gov",
        "sen",
        "rep",
        "pres",
        "st",
        "mt",
        "ft",
        "hr",
        "fr",
        "sra",
        "srta",
    ]
)
"""Abbreviations in front of a name: they never end a sentence that goes on."""

FIRST_WORDS = frozenset(
    [
        "The",
        "It",
        "We",
        "They",
        "He",
        "She",
        "This",
        "That",
        "These",
        "Those",
        "You",
        "But",
        "And",
        "If",
        "In",
        "A",
        "An",
        "What",
        "How",
        "Do",
        "There",
        "Then",
        "Please",
        "However",
    ]
)
"""Capitalized words that usually begin a sentence."""

SPOKEN_SIGNS = frozenset("%&@+=°")
"""Signs that are spoken in a word without letters and digits; others there are decoration."""


def abbreviation(view: View) -> Reading | None:
    """Return the spoken form of an abbreviation (in full) or of initials (as letters); None for other words."""
    token, language = view.token, view.language
    dotted = token.closing.startswith(".")
    stem = token.core.lower().rstrip(".")
    if language.native and (reading := _by_context(view, stem, dotted=dotted)):
        return reading
    month = language.month(token.core) if dotted and len(token.core) < 5 else None
    if month is not None and language.months[month].lower() != stem:
        return _bound(view, language.months[month])
    shouted = token.core.isupper() and len(token.core) > 1 and token.core.isalpha()
    if dotted and stem in language.abbreviations and not shouted and not _ends(view, stem):
        return _bound(view, language.abbreviations[stem])
    if token.core in language.plain_abbreviations:
        return Reading((language.plain_abbreviations[token.core],))
    if dotted and INITIALS.fullmatch(f"{token.core}."):
        return _bound(view, spell(re.sub(r"\W", "", token.core)))
    if language.native and token.core in STATES and view.previous().closing.endswith(","):
        return Reading((STATES[token.core],))
    return None


def _ends(view: View, stem: str) -> bool:
    """Return True if a word with a full stop is a word at the end of a sentence, not an abbreviation ("sat.", "max.").

    Args:
        view: The words that are read next.
        stem: The word in lower case, without the full stop.
    """
    if stem not in {"max", "min", "temp", "ed", "fig", "mon", "wed", "fri", "apt", "rep", "sat"}:
        return False
    following = view.word(1).core
    return view.token.core.islower() and not following[:1].isdigit() and not following[:1].islower()


def _bound(view: View, words: str) -> Reading:
    """Return the reading of an abbreviation with a full stop. The full stop rarely ends the sentence.

    It ends the sentence at the end of the line. It also does before a typical first word of a sentence, unless the
    abbreviation is a title ("Dr.") or a single letter.

    Args:
        view: The words that are read next.
        words: The spoken words of the abbreviation.
    """
    further = view.token.closing.lstrip(".").strip("\"')]}”’»")
    if further:
        return Reading((words,), None if set("?!") & set(further) else WordBoundary.BOUND, stop=False)
    following = view.word(1).core
    titled = view.token.core.lower() in TITLES or len(view.token.core) == 1
    if not following or (following in FIRST_WORDS and not titled):
        return Reading((words,), WordBoundary.SENTENCE)
    return Reading((words,), WordBoundary.BOUND, stop=False)


def _by_context(view: View, stem: str, *, dotted: bool) -> Reading | None:
    """Return the spoken form of an English abbreviation whose meaning depends on the words around it, or None.

    "St." is "Saint" or "Street", "Dr." is "Doctor" or "Drive", "p." is "page" and "No." is "number" before a number.

    Args:
        view: The words that are read next.
        stem: The abbreviation in lower case, without the full stop.
        dotted: Whether a full stop follows it.
    """
    if stem in {"st", "dr"} and (dotted or view.token.core in {"St", "Dr"}):
        title, place = ("Saint", "Street") if stem == "st" else ("Doctor", "Drive")
        previous = view.previous()
        named = previous.core[:1].isupper() and view.previous(2).core != "" and not previous.pauses
        following = view.word(1) if dotted and len(view.token.closing) == 1 else view.following()
        numbered = named and view.previous(2).core.isdecimal()
        if numbered or (named and not following.core[:1].isupper()):
            ends = following.core == "" or following.core[:1].isupper()
            edge = WordBoundary.SENTENCE if ends and dotted else WordBoundary.PLAIN
            return Reading((place,), None if len(view.token.closing) > 1 else edge, stop=ends)
        return Reading((title,), WordBoundary.BOUND, stop=False)
    if stem == "p" and view.token.closing == "." and view.word(1).core[:1].isdecimal():
        return Reading(("page",), WordBoundary.BOUND, stop=False)
    numbering = stem in {"no", "nos"} and view.token.closing == "." and not view.starts_sentence
    if numbering and view.word(1).core[:1].isdecimal():
        return Reading(("number",), WordBoundary.BOUND, stop=False)
    return None


def roman(view: View) -> Reading | None:
    """Return the spoken form of a roman numeral after a suitable word ("World War II", "Henry VIII"); else None."""
    core, language = view.token.core, view.language
    numerals, previous = language.numerals, view.previous()
    possessive = re.fullmatch(r"([IVX]+)(['’]s)?", core)
    if not language.native or not numerals or not possessive or not _ROMAN.fullmatch(possessive[1]):
        return None
    value = _roman_value(possessive[1])
    if previous.core.lower() in COUNTED_BY_ROMAN:
        return Reading((numerals.cardinal(value) + (possessive[2] or ""),))
    known = previous.core.lower() in REGNAL
    if not known and not (len(possessive[1]) > 1 and previous.core.istitle() and len(view.before) > 1):
        return None
    if (
        possessive[1] == "I"
        and not view.token.pauses
        and view.following().core in {"", "am", "was", "have", "will", "do"}
    ):
        return None
    return Reading((f"the {numerals.ordinal(value)}{possessive[2] or ''}",) if known else (numerals.cardinal(value),))


def _roman_value(text: str) -> int:
    values = [_VALUES[char] for char in text]
    return sum(-value if value < max(values[at:]) else value for at, value in enumerate(values))


def plain(view: View) -> Reading:
    """Return the reading of a word that is spoken as written. Signs inside the word are spoken by their names."""
    core, language = view.token.core, view.language
    if not any(char.isalnum() for char in core):
        return Reading((" ".join(view.say(sign) for sign in core if sign in SPOKEN_SIGNS),))
    if core.replace("'", "").replace("’", "").replace("-", "").isalpha():
        return Reading((core.replace("’", "'").strip("-"),))
    spoken: list[str] = []
    for part in re.findall(r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*|\d+(?:[.,]\d+)*|\S", core):
        if part[0].isalpha():
            spoken.append(part.replace("’", "'"))
        elif part[0].isdecimal():
            spoken.append(_figures(view, part))
        elif part in "—–…;:,|":
            spoken.append(",")
        else:
            spoken.append("" if part in "-'\"()[]{}.!?’‘“”`^" else view.say(part))
    return Reading((_joined(spoken),) if language.words else (core,))


def _figures(view: View, figures: str) -> str:
    numerals, language = view.language.numerals, view.language
    if not numerals:
        return figures
    whole, _, fraction = figures.partition(language.decimal)
    return numerals.decimal(re.sub(r"\D", "", whole), re.sub(r"\D", "", fraction))


def _joined(parts: list[str]) -> str:
    text = ""
    for part in parts:
        text += part if part == "," and text and not text.endswith(",") else f" {part}" if part and part != "," else ""
    return text.strip(" ,")
