"""Evidence from a hesitant caller's call: whether every answer belongs to the whole turn and to no earlier revision.

Three sources are compared:

- The caller has recorded which phrases it spoke, and when.
- The server's emulated transcript of an utterance states the length of its speech. This length must match the spoken
  phrases.
- A watermark in every word and every 10 ms of audio of an answer states a length of speech as well. It must be the
  length in the transcript. A speculative reply to an earlier revision states a smaller length.

The server may end a turn in a pause. The answer to the first half is then a regular answer, not a leak. The utterance
counts as premature, and its answer is checked like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtest.benches.drafts.caller import DetectedUtterance, HesitantCaller, ReceivedAnswer, SpokenPhrase
from rejoinder.core.measuring import audio_watermark

PADDING_S = 0.3
"""Seconds of audio before the start of speech that the server also transcribes (`speech.prefix_padding_ms`)."""

LESS_S, MORE_S = 0.15, 0.4
"""Number of seconds by which the length that a transcript states may be shorter or longer than the true speech. Voice
activity detection starts a few windows of 32 ms late and ends late, with the silence by which it detects the end. Two
revisions differ by at least a pause and a phrase, which is three times as long."""

READ_S = audio_watermark.WINDOW / 24_000
"""Length in seconds of a window of audio that has one mark."""
SEAM = 2
"""Number of consecutive windows without a mark that count as a leak. A single one occurs where two segments join."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Part of an answer whose watermark does not fit the utterance that was committed before the answer.

    Attributes:
        turn: Number of the turn, from 0. None if no utterance was committed.
        why: Kind of leak, in words.
        expected: Length of the utterance's speech that the answer should state, in tenths of a second. None if unknown.
        found: Lengths of speech that the answer states instead, in tenths of a second. None for sound that states none.
        audio_s: Seconds of wrong audio. 0 if only words are wrong.
    """

    turn: int | None
    why: str
    expected: int | None
    found: tuple[int | None, ...]
    audio_s: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Result of checking one call, or the sum of the results of several calls.

    Attributes:
        turns: Number of turns in the script.
        hesitant: Number of turns with a pause inside.
        unanswered: Number of turns without a complete answer.
        utterances: Number of utterances that the server detected.
        premature: Number of utterances that the server ended before the turn's last phrase.
        judged_s: Seconds of received audio whose watermarks were read.
        leaks: Parts of answers that do not belong to their utterance.
        misheard: Descriptions of utterances whose transcript does not match the spoken phrases.
        faults: Descriptions of the server's errors and of lost calls.
    """

    turns: int
    hesitant: int
    unanswered: int
    utterances: int
    premature: int
    judged_s: float
    leaks: tuple[Leak, ...]
    misheard: tuple[str, ...]
    faults: tuple[str, ...]

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.turns + other.turns,
            hesitant=self.hesitant + other.hesitant,
            unanswered=self.unanswered + other.unanswered,
            utterances=self.utterances + other.utterances,
            premature=self.premature + other.premature,
            judged_s=self.judged_s + other.judged_s,
            leaks=self.leaks + other.leaks,
            misheard=self.misheard + other.misheard,
            faults=self.faults + other.faults,
        )


NOTHING = Evidence(
    0, hesitant=0, unanswered=0, utterances=0, premature=0, judged_s=0.0, leaks=(), misheard=(), faults=()
)


def evidence(call: HesitantCaller, turns: int) -> Evidence:
    """Check a finished call, and return the result.

    Args:
        call: The caller, after `hang_up`.
        turns: Number of turns in its script.
    """
    covered = {key: _covered(utterance, call.spoken) for key, utterance in call.utterances.items()}
    audible = [answer for answer in call.answers.values() if answer.marks]
    return Evidence(
        turns=turns,
        hesitant=len({spoken.turn for spoken in call.spoken if not spoken.last}),
        unanswered=len(call.unanswered),
        utterances=len(covered),
        premature=sum(bool(phrases) and not phrases[-1].last for phrases in covered.values()),
        judged_s=sum(len(answer.marks) for answer in audible) * READ_S,
        leaks=tuple(_leaks(call, covered)),
        misheard=tuple(_misheard(call.utterances, covered)),
        faults=tuple(call.faults),
    )


def _covered(utterance: DetectedUtterance, spoken: Sequence[SpokenPhrase]) -> list[SpokenPhrase]:
    """Return the spoken phrases that an utterance contains, in order.

    A phrase belongs to the utterance that contains its middle. An utterance that ends in a pause may contain the first
    sound of the next phrase, before voice activity detects it.
    """
    return [phrase for phrase in spoken if utterance.start_s < (phrase.start_s + phrase.end_s) / 2 < utterance.end_s]


def _misheard(utterances: dict[str, DetectedUtterance], covered: dict[str, list[SpokenPhrase]]) -> Iterator[str]:
    for key, utterance in utterances.items():
        phrases, marks = covered[key], audio_watermark.marks_in(utterance.transcript or "")
        span = f"{utterance.start_s:.2f}-{utterance.end_s:.2f} s"
        if not phrases or len(marks) != 1:
            yield f"{span}: {len(phrases)} phrases, transcript {utterance.transcript!r}"
            continue
        true_s = phrases[-1].end_s - phrases[0].start_s + PADDING_S
        if not true_s - LESS_S <= marks[0] / 10 <= true_s + MORE_S:
            yield f"{span}: {true_s:.2f} s spoken, {marks[0] / 10} s transcribed"


def _leaks(call: HesitantCaller, covered: dict[str, list[SpokenPhrase]]) -> Iterator[Leak]:
    answered: set[str] = set()
    for answer in call.answers.values():
        utterance = call.utterances.get(answer.item_id or "")
        phrases = covered.get(answer.item_id or "", [])
        turn = phrases[-1].turn if phrases else None
        marks = audio_watermark.marks_in(utterance.transcript or "") if utterance else ()
        yield from _of_answer(answer, turn, marks[0] if len(marks) == 1 else None)
        if not answer.marks:
            continue
        audio_s = len(answer.marks) * READ_S
        if answer.item_id in answered:
            yield Leak(
                turn, why="a second answer to one utterance", expected=None, found=_found(answer.marks), audio_s=audio_s
            )
        if answer.reported is not None and answer.reported != answer.item_id:
            yield Leak(
                turn,
                why="the server reports another utterance for this answer",
                expected=None,
                found=_found(answer.marks),
                audio_s=audio_s,
            )
        if answer.item_id is not None:
            answered.add(answer.item_id)


def _of_answer(answer: ReceivedAnswer, turn: int | None, expected: int | None) -> Iterator[Leak]:
    """Yield the leaks in an answer: at most one for each of three kinds.

    The kinds are audio whose watermark is not `expected`, audio without a watermark, and words whose watermark is not
    `expected`.

    Args:
        answer: The answer.
        turn: Number of the turn, from 0, to note in the leaks. None if no utterance was committed.
        expected: Length of the utterance's speech in tenths of a second, which the watermarks should state.
    """
    foreign = [mark for mark in answer.marks if mark is not None and mark != expected]
    if foreign:
        why = "sound of another revision" if expected is not None else "sound before the first end of turn"
        yield Leak(turn, why=why, expected=expected, found=_found(foreign), audio_s=len(foreign) * READ_S)
    unmarked = sum(length for length in _gaps(answer.marks) if length >= SEAM)
    if unmarked:
        yield Leak(turn, why="sound without a mark", expected=expected, found=(None,), audio_s=unmarked * READ_S)
    wrong = [mark for mark in audio_watermark.marks_in(answer.words) if mark != expected]
    if wrong or (answer.words and not audio_watermark.marks_in(answer.words)):
        yield Leak(turn, why="words of another revision", expected=expected, found=_found(wrong or [None]), audio_s=0.0)


def _gaps(marks: Sequence[int | None]) -> Iterator[int]:
    """Yield the lengths of the gaps in `marks`, in windows: runs of None, which are windows without a watermark.

    There is one gap before each watermark and one after the last. A gap without windows has length 0.
    """
    length = 0
    for mark in (*marks, -1):
        if mark is None:
            length += 1
        else:
            yield length
            length = 0


def _found(marks: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return the different watermarks in `marks` (None is one of them), in the order of their first occurrence."""
    return tuple(dict.fromkeys(marks))
