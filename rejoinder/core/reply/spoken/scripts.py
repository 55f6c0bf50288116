"""Scripts of writing: which words a voice can read, and which characters are emoji."""

from __future__ import annotations

import re
import unicodedata

_NAMES = (
    *(("CJK", "han"), ("HIRAGANA", "kana"), ("KATAKANA", "kana"), ("HANGUL", "hangul"), ("CYRILLIC", "cyrillic")),
    *(("GREEK", "greek"), ("ARABIC", "arabic"), ("HEBREW", "hebrew"), ("THAI", "thai"), ("DEVANAGARI", "devanagari")),
    *(("LATIN", "latin"), ("FULLWIDTH LATIN", "latin"), ("FEMININE", "latin"), ("MASCULINE", "latin")),
)

_READABLE = {
    "zh": {"han"},
    "ja": {"han", "kana"},
    "ko": {"hangul", "han"},
    "el": {"greek"},
    "he": {"hebrew"},
    "th": {"thai"},
    "ne": {"devanagari"},
    "hi": {"devanagari"},
    "mr": {"devanagari"},
    **{key: {"cyrillic"} for key in ("ru", "uk", "bg", "sr", "kk", "mk", "be")},
    **{key: {"arabic"} for key in ("ar", "fa", "ur")},
}
"""Scripts that voices read, by language, besides Latin, which every voice reads. Other languages read only Latin."""

_ANY = frozenset({"und", "ka", "hy", "ml", "te", "ta", "bn", "am", "si", "kn", "gu", "pa"})
"""Languages with a script of their own that this module does not name: nothing is taken for unreadable."""

GREEK_LETTERS = dict(
    zip(
        "αβγδεζηθικλμνξοπρστυφχψω",
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "zeta",
            "eta",
            "theta",
            "iota",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "omicron",
            "pi",
            "rho",
            "sigma",
            "tau",
            "upsilon",
            "phi",
            "chi",
            "psi",
            "omega",
        ],
        strict=True,
    )
)

_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\u25a0-\u25ff\ufe0f\ufe0e\u20e3\u200d\u203c\u2049"
    "\u2122\u2139\U000e0020-\U000e007f\u2190-\u2191\u2193-\u2199\u21a9\u21aa\u3030\u303d\u2028\u2029]|:[a-z]+(?:_[a-z]+)+:"
)
_EMOTICON = re.compile(r"[:;=8xX][-o']?[)(\]\[DPpOo/\\|*]+|<3|\^_+\^|¯\\_\(ツ\)_/¯|[)(]+[-']?[:;=]|:'\(")


def script_of(char: str) -> str:
    """Return the name of the script of a letter, such as "latin" or "han"; "other" for a script not in the table."""
    if char.isascii():
        return "latin"
    name = unicodedata.name(char, "")
    return next((script for start, script in _NAMES if name.startswith(start)), "other")


def unreadable_script(word: str, language: str) -> str:
    """Return the script of a word that a voice of this language cannot read; "" if it can.

    A word is unreadable if more than half of its letters are in a script that the language does not use. A single Greek
    letter is spoken by its name, so it is readable.
    """
    letters = [char for char in word if char.isalpha()]
    if word.isascii() or not letters or language in _ANY or (len(letters) == 1 and letters[0].lower() in GREEK_LETTERS):
        return ""
    readable = {"latin"} | _READABLE.get(language, set())
    foreign = [script for script in map(script_of, letters) if script not in readable and script != "other"]
    foreign += [script for script in map(script_of, letters) if script == "other" and len(readable) == 1]
    return max(set(foreign), key=foreign.count) if 2 * len(foreign) > len(letters) else ""


def without_emoji(word: str) -> str:
    """Return a word without emoji, symbols of the same kind, and emoticons."""
    if _EMOTICON.fullmatch(word):
        return ""
    return word if word.isascii() and ":" not in word else _EMOJI.sub("", word)
