"""Dates and times of day in figures."""

from __future__ import annotations

import re

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.rules.view import Reading, View
from rejoinder.core.reply.spoken.units import WordBoundary

HALF_DAYS = {"am": "AM", "a.m": "AM", "a.m.": "AM", "pm": "PM", "p.m": "PM", "p.m.": "PM"}
NOT_SENTENCES = frozenset(
    [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "EST",
        "EDT",
        "PST",
        "PDT",
        "CST",
        "CDT",
        "MST",
        "ET",
        "PT",
        "CT",
        "GMT",
        "UTC",
        "CET",
        "I",
    ]
)
"""Capitalized words behind "p.m." that do not start a sentence."""

DATED = frozenset(["on", "by", "until", "before", "since", "due", "expires", "after"])
"""Words in front of "12/24" that make it a date and not a fraction."""

_TIME = re.compile(r"(\d{1,2})(?:[:h](\d{2}))?(?::\d{2})?(?:\s?([ap]\.?m\.?))?", re.IGNORECASE)


def date(view: View) -> Reading | None:
    """Return the spoken form of a date such as "2024-01-05", "1/5/2024" or "5.1.2024"; None for other words."""
    language, core = view.language, view.token.core
    if not language.numerals or not language.months:
        return None
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", core):
        year, month, day = (int(part) for part in match.groups())
    elif match := re.fullmatch(r"(\d{1,2})([/.])(\d{1,2})\2(\d{4}|\d{2})", core):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        american = language.code == "en" and match[2] == "/" and first <= 12
        month, day = (first, second) if american else (second, first)
        year += (2000 if year < 50 else 1900) if year < 100 else 0
    elif (match := re.fullmatch(r"(\d{1,2})/(\d{1,2})", core)) and view.previous().core.lower() in DATED:
        return _month_and_day(view, int(match[1]), int(match[2]))
    else:
        return None
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    comma = "," if language.code == "en" else ""
    return Reading((f"{language.day(day, language.months[month - 1])}{comma} {language.numerals.year(year)}",))


def _month_and_day(view: View, month: int, day: int) -> Reading | None:
    """Return the spoken form of "12/24" as month and day; None if they are not a date, or not in English."""
    language = view.language
    if language.code != "en" or not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return Reading((language.day(day, language.months[month - 1]),))


def time_of_day(view: View) -> Reading | None:
    """Return the spoken form of a time such as "3:30 p.m.", "5pm", "15h30" or "9am-5pm"; None for other words."""
    language = view.language
    if not language.numerals:
        return None
    low, dash, high = (
        re.split(r"([-–—])", view.token.core, maxsplit=1)
        if re.search(r"\d[^-–—]*[-–—]\d", view.token.core)
        else (view.token.core, "", "")
    )
    if not (_is_time(language, low) or (dash and _is_time(language, high) and re.fullmatch(r"\d{1,2}", low))):
        return _hour_alone(view) if not dash else None
    if dash:
        ends = [_clock(language, part) for part in (low, high)]
        return Reading((f" {view.say('to')} ".join(ends),)) if all(ends) else None
    return _with_half_day(view, low)


def _is_time(language: Language, text: str) -> bool:
    match = _TIME.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return False
    if "h" in text.lower().replace("am", "") and language.code != "fr":
        return False
    return int(match[1]) < 25 and int(match[2] or 0) < 60


def _clock(language: Language, text: str, *, follows: bool = False) -> str:
    """Return the words of a time of day such as "3:30" or "5pm"; "" for other text.

    Args:
        language: The language of the words.
        text: The time in figures.
        follows: True if "am" or "pm" is the next word.
    """
    match = _TIME.fullmatch(text)
    if not match or int(match[1]) > 24:
        return ""
    half = HALF_DAYS.get((match[3] or "").lower(), "")
    bare = not match[2] and not half
    if bare and language.numerals:
        return language.numerals.cardinal(int(match[1]))
    return f"{language.clock(int(match[1]), int(match[2] or 0), bool(half) or follows)} {half}".strip()


def _with_half_day(view: View, text: str) -> Reading:
    """Return the spoken form of a time in figures, together with the next word if that is "p.m." or "Uhr"."""
    match = _TIME.fullmatch(text)
    if match and match[3]:
        return _ended(view, (_clock(view.language, text),), 0)
    following = view.following()
    if half := HALF_DAYS.get(following.core.lower()):
        return _ended(view, (_clock(view.language, text, follows=True), half), 1)
    swallowed = following.core.lower() in view.language.clock_words
    return Reading((_clock(view.language, text), *([""] if swallowed else [])))


def _hour_alone(view: View) -> Reading | None:
    """Return the spoken form of an hour without minutes, such as "3 p.m." or "15 Uhr"; None for other numbers."""
    core, language = view.token.core, view.language
    if not re.fullmatch(r"\d{1,2}", core) or int(core) > 24 or view.token.pauses:
        return None
    following = view.following().core.lower()
    half = HALF_DAYS.get(following)
    if half and language.numerals and language.code == "en":
        return _ended(view, (language.numerals.cardinal(int(core)), half), 1)
    return Reading((language.clock(int(core), 0, False), "")) if following in language.clock_words else None


def _ended(view: View, spoken: tuple[str, ...], last: int) -> Reading:
    """Return the reading of a time that ends with am or pm, and decide what a full stop after it means.

    The full stop ends the sentence if the line ends or a capitalized word follows. Otherwise it is part of "p.m.".

    Args:
        view: The words that are read next.
        spoken: The spoken words of each written word of the time.
        last: Index of the last written word of the time in `view`.
    """
    token = view.word(last)
    if not token.closing.startswith(".") or "." not in token.core:
        return Reading(spoken)
    if len(token.closing) > 1:
        return Reading(spoken)
    following = view.word(last + 1)
    ends = following.core == "" or (following.core[:1].isupper() and following.core not in NOT_SENTENCES)
    return Reading(spoken, WordBoundary.SENTENCE if ends else WordBoundary.PLAIN, stop=ends)
