"""Markup: removes Markdown, HTML, footnotes and stage directions from single words and from groups of words."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from rejoinder.core.reply.spoken.scripts import GREEK_LETTERS, without_emoji

MAX_GROUP_WORDS = 24
"""Maximum words of a tag, a formula or a stage direction. A longer one is not closed, and its words are read."""

# An asterisk between two digits is a multiplication; any other is emphasis or a bullet.
_EMPHASIS = re.compile(r"(?<!\d)\*+|\*+(?!\d)|`+|(?<!\w)_+|_+(?!\w)")
_STRIKE = re.compile(r"~~")
_LINK_END = re.compile(r"\]\([^\s()]*(?:\([^\s()]*\)[^\s()]*)*\)|\](?:\[[^\]\s]*\])(?!\()")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:?|(?<=[^\W\d_.,!?)])\[\d{1,3}\]|(?<=[.,!?)])\[\d{1,3}\]|^\[\d{1,3}\](?=\W*$)")
_SUPERSCRIPT = re.compile(r"(?<=[^\W\d_][^\W\d_][^\W\d_.,])[⁰¹²³⁴-⁹]+|[⁰¹²³⁴-⁹]+$(?<=[.,!?][⁰¹²³⁴-⁹])|[†‡]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->|<!\w[^<>]*>")
_AUTOLINK = re.compile(r"<((?:https?://|mailto:|[\w.+-]+@)[^<>\s]+)>")
_RULE = re.compile(r"[-*_=~]{3,}|\|?:?-{2,}:?(?:\|:?-{2,}:?)*\|?|\|")
_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-fA-F]{1,5}|[a-zA-Z]{2,8}\d?);")
_ACTIONS = (
    "sigh laugh chuckle giggle smile grin nod pause cough clear gasp whisper shrug wink yawn sob cry cheer groan hum "
    "snicker smirk applause clap beat silence inhale exhale breathe sniff blush bow wave think lean scratch roll take "
    "raise tilt look softly quietly excitedly nervously warmly"
)
_DIRECTION = re.compile(rf"[*_(\[]+(?:{'|'.join(_ACTIONS.split())})(?:e?s|ing|ed|ghs|e)?\b", re.IGNORECASE)
_ALONE = frozenset(
    [
        "clear",
        "take",
        "raise",
        "tilt",
        "look",
        "roll",
        "lean",
        "scratch",
        "think",
        "wave",
        "beat",
        "silence",
        "bow",
        "cry",
        "hum",
    ]
)
"""Verbs that are a stage direction only with an ending ("clears throat") or as the only word in square brackets."""


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive words that form one construct of markup, such as a tag, a link or a formula.

    Attributes:
        words: Number of words of the construct.
        spoken: Text that is spoken for the construct. Empty for tags and stage directions. For a formula, its LaTeX.
        formula: Whether the construct is a formula, so that `formulas.latex_words` must turn `spoken` into words.
    """

    words: int
    spoken: str
    formula: bool = False


def group(words: tuple[str, ...], word: Callable[[int], str]) -> Group | None:
    """Return the construct of markup that begins with the next written word, or None.

    Args:
        words: The written words that have arrived, markup included, the next word first.
        word: Function that returns the written word at an index, or "" at the end of the line. It raises
            MoreWordsNeeded if the word has not arrived.
    """
    first = words[0]
    if re.match(r"<(?:/?[A-Za-z][\w-]*|!--)(?![^<>]*>)", first) and not first.startswith("<3"):
        return _closed(word, lambda text: ("-->" if first.startswith("<!--") else ">") in text)
    if first.startswith(("\\(", "\\[", "$$")):
        ends = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}[first[:2]]
        return _formula(word, ends, skip=2)
    if re.match(r"\$[^\d\s$]|\$\d+[^\d\s.,$]*[\\^_=]|\$\d[^\s$]*\$\W*$", first) and not re.match(r"\$[A-Z]{3}", first):
        return _formula(word, "$", skip=1)
    if direction := _DIRECTION.match(first):
        return _stage_direction(first, direction, word)
    if re.search(r"\]\([^()\s]*$", first):  # a link with a title: [text](address "title")
        found = _closed(word, lambda text: text.rstrip(".,;:!?").endswith(")"))
        return Group(found.words, first.split("](")[0].lstrip("[!")) if found else None
    return None


def _closed(word: Callable[[int], str], closes: Callable[[str], bool]) -> Group | None:
    """Return the construct of which only the text after its closing ">" is spoken; None if it is not closed.

    Args:
        word: Function that returns the written word at an index, or "" at the end of the line.
        closes: Function that returns True for a word that closes the construct.
    """
    for count in range(MAX_GROUP_WORDS):
        text = word(count)
        if not text:
            return None
        if closes(text):
            return Group(count + 1, text.rpartition(">")[2] if ">" in text else "")
    return None


def _formula(word: Callable[[int], str], ends: str, *, skip: int) -> Group | None:
    text = ""
    for count in range(MAX_GROUP_WORDS):
        part = word(count)
        if not part:
            return None
        text += f" {part}"
        if ends in text[1 + skip :]:
            inside, _, rest = text[1 + skip :].partition(ends)
            return Group(count + 1, inside.strip() + rest.strip(")]\"'")[:1], formula=True)
    return None


def _stage_direction(first: str, direction: re.Match[str], word: Callable[[int], str]) -> Group | None:
    opening = first[0]
    verb = direction[0].lstrip("*_([").lower()
    if verb in _ALONE and not (opening == "[" and first.rstrip(".,").endswith("]")):
        return None
    closing = {"*": "*", "_": "_", "(": ")", "[": "]"}[opening]
    if first.startswith("**"):
        return None
    for count in range(6):
        text = word(count)
        if not text:
            return None
        inside = text.lstrip("*_([") if count == 0 else text
        if closing in inside:
            rest = inside.rpartition(closing)[2]
            return Group(count + 1, "") if not rest.strip(".,!?:;)") else None
    return None


def visible(word: str) -> str:
    """Return a word as the transcript shows it: without the signs of Markdown emphasis and code."""
    return _EMPHASIS.sub("", word)


def spoken_word(word: str) -> str:
    """Return a written word without markup, emoji and footnote marks; "" if nothing is left to speak."""
    if word.isascii() and word.isalpha():
        return word
    if word in {"*", "x", "×", "--"}:
        return word
    text = without_emoji(word)
    if _RULE.fullmatch(text):
        return "," if text == "|" else ""
    text = _command(text) if "\\" in text else text
    text = _AUTOLINK.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = _LINK_END.sub("", text) if "]" in text else text
    text = _FOOTNOTE.sub("", text)
    text = _SUPERSCRIPT.sub("", text)
    text = html.unescape(text).replace("\xa0", "") if _ENTITY.search(text) else text
    text = _EMPHASIS.sub("", _STRIKE.sub("", text))
    if text.startswith(("![", "[")) and "]" not in text:
        text = text.lstrip("![")
    if sum(char.isalpha() for char in text) == 1:
        return "".join(GREEK_LETTERS.get(char.lower(), char) for char in text)
    return text


def _command(text: str) -> str:
    """Return a word without the backslashes that escape Markdown signs."""
    return re.sub(r"\\([\W_])", r"\1", text)
