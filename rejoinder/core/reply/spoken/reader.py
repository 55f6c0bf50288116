"""Reader: turns the written words of a reply, one by one, into spoken words.

The reader queues the words of the current line. It returns words from the front of the queue as soon as their spoken
form is certain. A number waits for the next word ("5" may be followed by "million"), an abbreviation waits for the word
that it belongs to, and an opening tag waits for its end. All other words are returned at once, so the first segment of
a reply waits only if the spoken form is ambiguous.

The spoken form depends only on the words, never on how the text was split into tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rejoinder.core.reply.spoken.languages.language import Language
from rejoinder.core.reply.spoken.markup import Group, group, spoken_word, visible
from rejoinder.core.reply.spoken.rules.calendar import date, time_of_day
from rejoinder.core.reply.spoken.rules.formulas import latex_words
from rejoinder.core.reply.spoken.rules.identifiers import address, code, phone
from rejoinder.core.reply.spoken.rules.prose import abbreviation, plain, roman
from rejoinder.core.reply.spoken.rules.quantities import (
    dimensions,
    equation,
    fraction,
    named_currency,
    operator,
    quantity,
)
from rejoinder.core.reply.spoken.rules.view import CLOSERS, OPENERS, MoreWordsNeeded, Reading, Token, View
from rejoinder.core.reply.spoken.scripts import unreadable_script
from rejoinder.core.reply.spoken.units import SpokenUnit, WordBoundary

MAX_WORD = 60
"""Maximum characters of a word that is read. A longer one is an address, which is shortened, or no word at all."""

SPACELESS = frozenset({"zh", "ja", "th"})
"""Languages that are written without spaces between words."""

CONTEXT = 8
"""Number of words before the next one that the rules can see."""

_RULES: tuple[Callable[[View], Reading | None], ...] = (
    *(phone, date, time_of_day, fraction, dimensions, quantity, address, equation),
    *(named_currency, roman, abbreviation, code),
)
_LIST_NUMBER = re.compile(r"\d{1,3}[.)]")
_LINE_MARK = re.compile(r"[-+*•–]|#+|>+|\[[ xX]?\]")
_FENCE = re.compile(r"(?:```|~~~)[^`~]*")
_OPERATOR = re.compile(r"[-−–—+=<>≤≥≠≈±×÷·*/^&@%~→]|--|---|x|X")


class WordReader:
    """Converter from the written words of one reply to spoken words. Not thread-safe."""

    def __init__(self, language: Language) -> None:
        """Create a reader for a voice of this language."""
        self._language = language
        self._queue: list[tuple[str, bool]] = []
        self._before: list[Token] = []
        self._line_start = True
        self._fenced = False
        self._cut_off = False
        self._noted: set[str] = set()

    @property
    def waiting(self) -> bool:
        """True if words are queued because their spoken form is not certain yet."""
        return bool(self._queue)

    def push(self, word: str, *, glued: bool = False) -> list[SpokenUnit]:
        """Add a complete word, and return the words whose spoken form is now certain, with that form.

        Args:
            word: The word, without whitespace.
            glued: True if no space separates the word from the word before.
        """
        if self._fenced:
            return [self._code(word, glued=glued)]
        if _FENCE.fullmatch(word):
            units = self._settle(final=True)
            self._fenced, self._line_start = True, False
            return [*units, SpokenUnit(word, "")]
        if self._line_start and not self._queue and _LINE_MARK.fullmatch(word):
            return []
        self._queue.append((word, glued))
        return self._settle(final=False)

    def discard(self) -> None:
        """Drop the queued words. The next word is treated as the first word of a line."""
        self._queue.clear()
        self._before.clear()
        self._line_start = True
        self._fenced = self._cut_off = False

    def end_line(self) -> list[SpokenUnit]:
        """End the line, and return the words that were queued, with their spoken form."""
        units = self._settle(final=True)
        self._before.clear()
        self._line_start = True
        return units

    def _code(self, word: str, *, glued: bool) -> SpokenUnit:
        """Return the unit of a word in a block of code. Code is not spoken.

        The first word of the first block speaks the note "code" of the language instead.
        """
        self._line_start = False
        if word.endswith(("```", "~~~")):
            self._fenced = False
        spoken = self._note("code") if any(char.isalnum() for char in word) else ""
        return SpokenUnit(word, spoken, WordBoundary.SENTENCE if spoken else WordBoundary.PLAIN, glued)

    def _settle(self, *, final: bool) -> list[SpokenUnit]:
        units: list[SpokenUnit] = []
        while self._queue:
            try:
                units += self._next(final=final)
            except MoreWordsNeeded:
                break
        return units

    def _next(self, *, final: bool) -> list[SpokenUnit]:
        """Remove the first word or construct from the queue, and return its units.

        Args:
            final: True if no more words of the line follow.

        Raises:
            MoreWordsNeeded: The spoken form depends on words that have not arrived.
        """

        def raw(index: int) -> str:
            if index < len(self._queue):
                return self._queue[index][0]
            if final:
                return ""
            raise MoreWordsNeeded

        word, glued = self._queue[0]
        if self._is_plain(word) and not glued:  # most words are plain: skip the rules for speed
            return self._spoken_as_written(word)
        self._cut_off = len(word) > MAX_WORD or (glued and self._cut_off)
        if self._cut_off:
            return [self._overlong(word, glued=glued)]
        if found := group(tuple(text for text, _ in self._queue), raw):
            return self._grouped(found, final=final)
        tokens = [Token.of(spoken_word(text)) for text, _ in self._queue]
        view = View(self._language, tokens, final, self._before)
        reading = self._read(view, word)
        return self._units(reading, view)

    def _is_plain(self, word: str) -> bool:
        """Return True if a word is spoken as written: ASCII lower-case letters only, and not an abbreviation."""
        letters = word.isascii() and word.isalpha() and word.islower() and len(word) <= MAX_WORD
        return letters and word != "x" and word not in self._language.plain_abbreviations

    def _spoken_as_written(self, word: str) -> list[SpokenUnit]:
        self._queue.pop(0)
        self._cut_off = self._line_start = False
        self._remember(Token("", word, ""))
        return [SpokenUnit(word, word)]

    def _read(self, view: View, word: str) -> Reading:
        core = view.token.core
        if not core:
            return Reading(("",))
        if script := unreadable_script(word, self._language.code):
            return Reading((self._note("script", script),))
        if self._language.words and _OPERATOR.fullmatch(core) and not view.token.opening:
            return operator(view) or Reading((core if core.isalpha() else ",",))
        if core.isalpha() and core.islower() and not view.token.closing.startswith("."):
            return abbreviation(view) or Reading((core,))
        return next((reading for rule in _RULES if (reading := rule(view))), None) or plain(view)

    def _units(self, reading: Reading, view: View) -> list[SpokenUnit]:
        """Return a unit for each written word that `reading` covers, and remove these words from the queue."""
        units: list[SpokenUnit] = []
        count = len(reading.spoken)
        for index, spoken in enumerate(reading.spoken):
            (word, glued), last = self._queue[index], index == count - 1
            token = view.word(index)
            shown = visible(word) or (word if spoken.strip(",") else "")
            cleaned = token.opening + token.core + token.closing
            edge = edge_of(cleaned, line_start=self._line_start)
            stop = reading.stop and not (self._line_start and _LIST_NUMBER.fullmatch(shown))
            edge = (reading.edge or edge) if last else WordBoundary.BOUND
            pause = token.pause if last or token.pause == "," else ""
            if pause == "." and (not stop or edge is WordBoundary.BOUND):
                pause = ""
            if count == 1:
                spoken, pause = self._set_apart(token, spoken, pause)
            units.append(SpokenUnit(shown, spoken if spoken.endswith(",") else f"{spoken}{pause}", edge, glued))
            self._line_start = False
            self._remember(token)
        del self._queue[:count]
        return [unit for unit in units if unit.written]

    def _set_apart(self, token: Token, spoken: str, pause: str) -> tuple[str, str]:
        """Add commas to a word where a parenthesis begins or ends, so that the voice pauses there.

        Args:
            token: The written word.
            spoken: Its spoken words.
            pause: The punctuation mark after them, or "".

        Returns:
            The spoken words and the punctuation mark, with a comma added if needed.
        """
        if spoken and "(" in token.opening and self._before and not self._before[-1].pauses:
            spoken = f", {spoken}"
        return spoken, pause or ("," if spoken and ")" in token.closing else "")

    def _grouped(self, found: Group, *, final: bool) -> list[SpokenUnit]:
        """Return one unit per written word of a construct of markup, and remove the words from the queue.

        The first unit has all spoken words of the construct.
        """
        words = [visible(word) for word, _ in self._queue[: found.words]]
        view = View(self._language, [NOWHERE], final, self._before)
        del self._queue[: found.words]
        self._line_start = False
        spoken = found.spoken
        if found.formula:
            end = spoken[-1] if spoken[-1:] in set(".,;:!?") else ""
            spoken = latex_words(view, spoken.removesuffix(end)) + end
        elif spoken:
            alone = WordReader(self._language)
            spoken = " ".join(unit.spoken for unit in [*alone.push(spoken), *alone.end_line()])
        for word in words:
            self._remember(Token.of(word))
        edges = [WordBoundary.BOUND] * (len(words) - 1) + [edge_of(words[-1], line_start=False)]
        return [
            SpokenUnit(word, spoken if index == 0 else "", edge)
            for index, (word, edge) in enumerate(zip(words, edges, strict=True))
        ]

    def _overlong(self, word: str, *, glued: bool) -> SpokenUnit:
        """Return the unit of a word longer than MAX_WORD characters, or of a further part of such a word (`glued`).

        An address is spoken in short form. Text in a script without spaces between words is spoken in full. The first
        other overlong word of a reply speaks the note "long" instead, and later ones are silent.
        """
        self._queue.pop(0)
        self._line_start = False
        self._remember(Token.of(""))
        view = View(self._language, [Token.of(spoken_word(word))], final=True, before=self._before)
        if not word.isascii() or self._language.code in SPACELESS:
            spoken = self._read(view, word).spoken[0]
        else:
            reading = None if glued else address(view)
            spoken = "" if glued else reading.spoken[0] if reading else self._note("long")
        return SpokenUnit(visible(word), spoken, edge_of(word, line_start=False), glued)

    def _note(self, kind: str, script: str = "") -> str:
        """Return the sentence that is spoken in place of unreadable text; "" if this reply already had it.

        Args:
            kind: Key of `Language.notes`: "code", "long" or "script".
            script: Name of the foreign script, for the kind "script".
        """
        if kind in self._noted or kind not in self._language.notes:
            return ""
        self._noted.add(kind)
        return self._language.notes[kind].format(script=self._language.scripts.get(script, "foreign"))

    def _remember(self, token: Token) -> None:
        self._before.append(token)
        del self._before[:-CONTEXT]


NOWHERE = Token("", "", "")


def edge_of(word: str, *, line_start: bool) -> WordBoundary:
    """Return the kind of boundary after a complete word, by its punctuation alone, without regard to abbreviations.

    Args:
        word: The word, with its punctuation.
        line_start: Whether it is the first word of a line. If so, a number such as "1." or "1)" is a list number and
            belongs to the next word.
    """
    core = word.strip(OPENERS).rstrip(CLOSERS)
    if line_start and _LIST_NUMBER.fullmatch(word):
        return WordBoundary.BOUND
    if core.endswith(("..", "…", ",", ";", ":", "—", "–", "--", "，", "、", "；", "：")) or core == "-":
        return WordBoundary.CLAUSE
    return WordBoundary.SENTENCE if core.endswith((".", "!", "?", "。", "！", "？")) else WordBoundary.PLAIN
