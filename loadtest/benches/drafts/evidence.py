"""What a hesitant caller's call proves: whether all that was heard answers the whole of what its turn held.

Three sources are held against each other. The caller knows what it spoke and when. The server's transcript of an
utterance says how many seconds it was made from; it must be those from the first to the last phrase that the utterance
covers. And every word and every 10 ms of sound of an answer must name that very number: a draft of an earlier revision
names a smaller one.

A pause that the server took for the end of the turn is no discarded revision: its answer is the answer to the first
half, which was committed. It is counted as premature, and what is said about it is judged like the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtest.benches.drafts.caller import HesitantCaller, ReceivedAnswer, SpokenPhrase, TakenUtterance
from rejoinder.core.measuring import audio_watermark as marking

PADDING_S = 0.3
"""What the server transcribes before the first speech (`speech.prefix_padding_ms`)."""

LESS_S, MORE_S = 0.15, 0.4
"""So much shorter or longer than the true speech a transcript may be: voice activity begins a few windows of 32 ms
late, lags behind the last sound, and hands over the silence with which it knew of the end. The shortest pause and
phrase that make a revision longer are three times this.
"""

READ_S = marking.WINDOW / 24_000
SEAM = 2
"""So many windows in a row without a mark are a sound of its own; one alone is where two segments meet."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Something was heard that answers no committed turn, or another one: `expected` and `found` in tenths of seconds.

    `audio_s`: how much of it; 0 if only words were wrong.
    """

    turn: int | None
    why: str
    expected: int | None
    found: tuple[int | None, ...]
    audio_s: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one call, or of several. `judged_s`: answers' audio that was read; `misheard`: utterances whose transcript is
    not of what was said in them; `premature`: utterances that ended before their turn did.
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
    """What a call of so many turns proves; it has been hung up."""
    covered = {key: _covered(taken, call.spoken) for key, taken in call.utterances.items()}
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


def _covered(taken: TakenUtterance, spoken: Sequence[SpokenPhrase]) -> list[SpokenPhrase]:
    """The phrases that an utterance holds, in order: by their middles, as a turn that is taken in a pause may reach
    into the first sound behind it, which voice activity did not believe yet.
    """
    return [phrase for phrase in spoken if taken.start_s < (phrase.start_s + phrase.end_s) / 2 < taken.end_s]


def _misheard(utterances: dict[str, TakenUtterance], covered: dict[str, list[SpokenPhrase]]) -> Iterator[str]:
    for key, taken in utterances.items():
        phrases, heard = covered[key], marking.marks_in(taken.transcript or "")
        if not phrases or len(heard) != 1:
            yield f"{taken.start_s:.2f}-{taken.end_s:.2f} s: {len(phrases)} phrases, transcript {taken.transcript!r}"
            continue
        true_s = phrases[-1].end_s - phrases[0].start_s + PADDING_S
        if not true_s - LESS_S <= heard[0] / 10 <= true_s + MORE_S:
            yield f"{taken.start_s:.2f}-{taken.end_s:.2f} s: {true_s:.2f} s were said, {heard[0] / 10} s heard"


def _leaks(call: HesitantCaller, covered: dict[str, list[SpokenPhrase]]) -> Iterator[Leak]:
    answered: set[str] = set()
    for answer in call.answers.values():
        taken = call.utterances.get(answer.item_id or "")
        phrases = covered.get(answer.item_id or "", [])
        turn = phrases[-1].turn if phrases else None
        marks = marking.marks_in(taken.transcript or "") if taken else ()
        yield from _of_answer(answer, turn, marks[0] if len(marks) == 1 else None)
        if not answer.marks:
            continue
        heard_s = len(answer.marks) * READ_S
        if answer.item_id in answered:
            yield Leak(
                turn, why="a second answer to one utterance", expected=None, found=_found(answer.marks), audio_s=heard_s
            )
        if answer.reported is not None and answer.reported != answer.item_id:
            yield Leak(
                turn,
                why="it says that it answers another utterance",
                expected=None,
                found=_found(answer.marks),
                audio_s=heard_s,
            )
        if answer.item_id is not None:
            answered.add(answer.item_id)


def _of_answer(answer: ReceivedAnswer, turn: int | None, expected: int | None) -> Iterator[Leak]:
    """What of an answer's sound and words is not of the utterance that it answers."""
    foreign = [mark for mark in answer.marks if mark is not None and mark != expected]
    if foreign:
        why = "sound of another revision" if expected is not None else "sound before any turn was taken"
        yield Leak(turn, why=why, expected=expected, found=_found(foreign), audio_s=len(foreign) * READ_S)
    unmarked = sum(length for length in _gaps(answer.marks) if length >= SEAM)
    if unmarked:
        yield Leak(
            turn, why="sound that names no revision", expected=expected, found=(None,), audio_s=unmarked * READ_S
        )
    said = [mark for mark in marking.marks_in(answer.words) if mark != expected]
    if said or (answer.words and not marking.marks_in(answer.words)):
        yield Leak(turn, why="words of another revision", expected=expected, found=_found(said or [None]), audio_s=0.0)


def _gaps(marks: Sequence[int | None]) -> Iterator[int]:
    """Lengths of the runs of windows without a mark."""
    length = 0
    for mark in (*marks, -1):
        if mark is None:
            length += 1
        else:
            yield length
            length = 0


def _found(marks: Sequence[int | None]) -> tuple[int | None, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(marks))
