"""Tests of how each query policy decides in one silence, and of the summary over many silences.

The policies are `always`, `sparing` and `silent`. A query is a request to the turn model, its answer a verdict.
"""

from __future__ import annotations

import pytest

from benchmarks.studies.turn_study import Decision, Silence, decide, outcome
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.end_of_turn import end_of_turn_probability
from rejoinder.core.turns.endpointing import TurnDetection, endpoint_silence_s
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
    """Return the silence in ms that endpointing requires, given the turn model's probability and transcript ending."""
    return endpoint_silence_s(TurnDetection(), SETTINGS.endpointing, end_of_turn_probability(turn_model, words)) * 1000


def test_always_follows_the_turn_model() -> None:
    """With `always`, the turn ends when the verdict has come and the silence that the evidence requires is over.

    The evidence is the verdict and, if it is there by then, the transcript.
    """
    for probability in (0.0, 0.5, 1.0):
        taken_ms = decide(silence(probability=probability), "always", SETTINGS).taken_ms
        assert taken_ms == max(64 + 50, due_ms(probability, None))
    late = silence(judged_ms=700)
    assert decide(late, "always", SETTINGS).taken_ms == 64 + 700
    with_words = silence(probability=0.5, judged_ms=260)
    assert decide(with_words, "always", SETTINGS).taken_ms == max(64 + 260, due_ms(0.5, TranscriptEnding.FINISHED))


def test_a_verdict_that_comes_before_the_transcript_decides() -> None:
    """With `sparing`, the turn model is queried after ASK_MS milliseconds of silence.

    If its verdict comes before the transcript (250 ms after the tentative end of speech), the verdict decides.
    """
    for probability in (0.0, 1.0):
        taken_ms = decide(silence(probability=probability), "sparing", SETTINGS).taken_ms
        assert taken_ms == max(ASK_MS + 50, due_ms(probability, None))


def test_a_pause_that_ends_before_the_query_time_is_not_queried() -> None:
    """`always` queries the turn model in a pause that ends before the query time, and `sparing` does not."""
    short = silence(resumed_ms=ASK_MS - 1)
    assert decide(short, "always", SETTINGS).asked
    assert not decide(short, "sparing", SETTINGS).asked
    assert decide(silence(resumed_ms=ASK_MS + 1), "sparing", SETTINGS).asked


def test_a_finished_transcript_before_the_query_time_avoids_the_query() -> None:
    """With `sparing`, a transcript that looks complete before the query time decides.

    The turn then ends after 292 ms of silence without a query.
    """
    quick = silence(probability=0.0, transcribed_ms=100)
    decided = decide(quick, "sparing", SETTINGS)
    assert (round(decided.taken_ms), decided.asked) == (292, False)


def test_an_open_transcript_triggers_the_query_at_once() -> None:
    """With `sparing`, the turn model is queried as soon as a transcript arrives that looks incomplete.

    It does not wait for ASK_MS milliseconds of silence.
    """
    unfinished = silence(text="and then the", transcribed_ms=100)
    assert decide(unfinished, "sparing", SETTINGS) == Decision(
        max(164 + 50, due_ms(1.0, TranscriptEnding.OPEN)), asked=True
    )


def test_a_finished_transcript_before_a_late_verdict_decides() -> None:
    """If a transcript that looks complete comes before the verdict of a query, the transcript decides.

    With `silent`, which never queries, the turn ends at the same time.
    """
    late = silence(probability=0.0, judged_ms=300)
    assert decide(late, "sparing", SETTINGS) == Decision(64 + 250, asked=True)
    assert decide(late, "silent", SETTINGS).taken_ms == 64 + 250


def test_open_words_without_a_verdict_wait_for_the_fallback() -> None:
    """With `silent`, which never queries, the fallback silence ends the turn if the transcript looks incomplete."""
    unfinished = silence(text="and then the")
    assert decide(unfinished, "silent", SETTINGS).taken_ms == pytest.approx(SETTINGS.endpointing.fallback_silence_ms)


def test_the_outcome_counts_cuts_and_times_ends() -> None:
    """A pause longer than the policy's wait counts as cut off, a shorter one does not.

    The latency in ms is the silence after which the turn ends, for a silence after which nothing is said.
    """
    due = due_ms(1.0, None)
    found = outcome("always", [silence(resumed_ms=due - 10), silence(resumed_ms=due + 10), silence()], SETTINGS)
    assert (found.silences, found.pauses, found.asked, found.cut) == (3, 2, 3, 1)
    assert (found.latency_p50_ms, found.ready_p50_ms) == (due, 314.0)
