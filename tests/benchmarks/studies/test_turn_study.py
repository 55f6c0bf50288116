"""The study of turn decisions: what each policy makes of a silence."""

from __future__ import annotations

import pytest

from benchmarks.studies.turn_study import Decision, Silence, decide, outcome
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.end_of_turn import complete
from rejoinder.core.turns.endpointing import TurnDetection, wait_s
from rejoinder.core.turns.transcript_ending import TranscriptEnding

SETTINGS = Settings()
ASK_MS = SETTINGS.endpointing.ask_after_ms


def silence(
    resumed_ms: float | None = None,
    probability: float = 1.0,
    text: str = "It was the age of wisdom.",
    judged_ms: float = 50,
    *,
    transcribed_ms: float = 250,
) -> Silence:
    return Silence(
        "clip",
        soft_ms=64.0,
        resumed_ms=resumed_ms,
        probability=probability,
        later=probability,
        judged_ms=judged_ms,
        text=text,
        transcribed_ms=transcribed_ms,
        sentence_over=False,
    )


def due_ms(turn_model: float, words: TranscriptEnding | None) -> float:
    """The silence that this evidence asks for."""
    return wait_s(TurnDetection(), SETTINGS.endpointing, complete(turn_model, words)) * 1000


def test_always_takes_the_models_word() -> None:
    """A verdict takes the turn after the silence that it asks for (alone while there are no words) or when it comes."""
    for probability in (0.0, 0.5, 1.0):
        taken_ms = decide(silence(probability=probability), "always", SETTINGS).taken_ms
        assert taken_ms == max(64 + 50, due_ms(probability, None))
    late = silence(judged_ms=700)
    assert decide(late, "always", SETTINGS).taken_ms == 64 + 700
    told = silence(probability=0.5, judged_ms=260)
    assert decide(told, "always", SETTINGS).taken_ms == max(64 + 260, due_ms(0.5, TranscriptEnding.FINISHED))


def test_a_verdict_that_comes_before_the_transcript_decides() -> None:
    """Asked after 200 ms of silence, it is still there before a transcript of 250 ms."""
    for probability in (0.0, 1.0):
        taken_ms = decide(silence(probability=probability), "sparing", SETTINGS).taken_ms
        assert taken_ms == max(ASK_MS + 50, due_ms(probability, None))


def test_a_pause_that_is_over_before_the_question_costs_none() -> None:
    """Always asks about every soft end; sparing only about silences that last."""
    short = silence(resumed_ms=ASK_MS - 1)
    assert decide(short, "always", SETTINGS).asked
    assert not decide(short, "sparing", SETTINGS).asked
    assert decide(silence(resumed_ms=ASK_MS + 1), "sparing", SETTINGS).asked


def test_words_that_read_finished_in_time_are_never_asked_about() -> None:
    """The transcript is there before the question: it decides, and what is left of its 292 ms of silence is waited."""
    quick = silence(probability=0.0, transcribed_ms=100)
    decided = decide(quick, "sparing", SETTINGS)
    assert (round(decided.taken_ms), decided.asked) == (292, False)


def test_words_in_doubt_are_asked_about_at_once() -> None:
    """The transcript is there before the question and decides nothing: the question goes out with it."""
    doubtful = silence(text="and then the", transcribed_ms=100)
    assert decide(doubtful, "sparing", SETTINGS) == Decision(
        max(164 + 50, due_ms(1.0, TranscriptEnding.OPEN)), asked=True
    )


def test_a_late_verdict_leaves_it_to_words_that_read_finished() -> None:
    """The transcript came first: its ending decides, and the question was asked for nothing."""
    late = silence(probability=0.0, judged_ms=300)
    assert decide(late, "sparing", SETTINGS) == Decision(64 + 250, asked=True)
    assert decide(late, "silent", SETTINGS).taken_ms == 64 + 250


def test_open_words_without_a_verdict_wait_for_the_fallback() -> None:
    """No turn model and a transcript that decides nothing: silence alone."""
    doubtful = silence(text="and then the")
    assert decide(doubtful, "silent", SETTINGS).taken_ms == pytest.approx(SETTINGS.endpointing.fallback_silence_ms)


def test_the_outcome_counts_cuts_and_times_ends() -> None:
    """A pause longer than the wait is cut, a shorter one is not; the end's latency is the silence it took."""
    due = due_ms(1.0, None)
    found = outcome("always", [silence(resumed_ms=due - 10), silence(resumed_ms=due + 10), silence()], SETTINGS)
    assert (found.silences, found.pauses, found.asked, found.cut) == (3, 2, 3, 1)
    assert (found.latency_p50_ms, found.ready_p50_ms) == (due, 314.0)
