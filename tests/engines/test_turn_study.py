"""The study of turn decisions: what each policy makes of a silence."""

from __future__ import annotations

import pytest

from deployments.engines.turn_study import Decision, Silence, decide, outcome
from rejoinder.core.config import Settings

SETTINGS = Settings()
ASK_MS = SETTINGS.endpointing.ask_after_ms


def silence(
    resumed_ms: float | None = None,
    probability: float = 1.0,
    text: str = "It was the age of wisdom.",
    judged_ms: float = 50,
    transcribed_ms: float = 250,
) -> Silence:
    return Silence("clip", 64.0, resumed_ms, probability, probability, judged_ms, text, transcribed_ms)


def test_always_takes_the_models_word() -> None:
    """A sure verdict takes the turn when it comes; a sure "no" waits the maximum."""
    assert decide(silence(), "always", SETTINGS).taken_ms == 64 + 50
    assert decide(silence(probability=0.0), "always", SETTINGS).taken_ms == SETTINGS.endpointing.max_silence_ms


def test_a_verdict_that_comes_before_the_transcript_decides() -> None:
    """Asked after 200 ms of silence, it is still there before a transcript of 250 ms."""
    assert decide(silence(), "sparing", SETTINGS).taken_ms == ASK_MS + 50
    assert decide(silence(probability=0.0), "sparing", SETTINGS).taken_ms == SETTINGS.endpointing.max_silence_ms


def test_a_pause_that_is_over_before_the_question_costs_none() -> None:
    """Always asks about every soft end; sparing only about silences that last."""
    short = silence(resumed_ms=ASK_MS - 1)
    assert decide(short, "always", SETTINGS).asked
    assert not decide(short, "sparing", SETTINGS).asked
    assert decide(silence(resumed_ms=ASK_MS + 1), "sparing", SETTINGS).asked


def test_words_that_read_finished_in_time_are_never_asked_about() -> None:
    """The transcript is there before the question: it decides, and what is left of its 220 ms of silence is waited."""
    quick = silence(probability=0.0, transcribed_ms=100)
    decided = decide(quick, "sparing", SETTINGS)
    assert (round(decided.taken_ms), decided.asked) == (220, False)


def test_words_in_doubt_are_asked_about_at_once() -> None:
    """The transcript is there before the question and decides nothing: the question goes out with it."""
    doubtful = silence(text="and then the", transcribed_ms=100)
    assert decide(doubtful, "sparing", SETTINGS) == Decision(164 + 50, asked=True)


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
    found = outcome("always", [silence(resumed_ms=110), silence(resumed_ms=300), silence()], SETTINGS)
    assert (found.silences, found.pauses, found.asked, found.cut) == (3, 2, 3, 1)
    assert (found.latency_p50_ms, found.ready_p50_ms) == (114.0, 314.0)
