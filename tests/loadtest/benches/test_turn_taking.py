"""Scoring of the turn-taking bench: what counts for which figure, and when the bars hold."""

from __future__ import annotations

import pytest

from loadtest.benches.turn_taking import (
    QUICK_EVENTS,
    EventOutcome,
    figures,
    grouped,
    outcome_of,
    pause_group,
    report,
    selected,
    sentences,
    stage_times,
)
from loadtest.turn_corpus.event import Split
from loadtest.turn_corpus.recipe import events


def _outcome(expected: str, **found: object) -> EventOutcome:
    fields: dict[str, object] = {"event": "a/b", "kind": "number", "voice": "v", "split": "development"}
    return EventOutcome(expected=expected, **(fields | found))  # type: ignore[arg-type]  # values of several types


def _turn(answered_s: float | None, pause_ms: int = 500, **found: object) -> EventOutcome:
    return _outcome("answer", answered_s=answered_s, longest_pause_ms=pause_ms, **found)


def test_an_answer_before_the_end_of_speech_is_an_interruption() -> None:
    """Of four turns with pauses up to 1 s, the one that was answered 0.4 s before its end counts as interrupted."""
    found = figures([_turn(-0.4), _turn(0.3), _turn(0.5), _turn(None)])
    assert (found.interrupts.count, found.interrupts.total) == (1, 4)
    assert (found.answered.count, found.answered.total) == (2, 3)
    assert found.latency_p50_s.value == 0.3
    assert found.latency_p95_s.value == 0.5


def test_only_pauses_up_to_one_second_inside_a_sentence_count_for_the_bar() -> None:
    """Longer pauses count in `interrupts_all` only. A text of two sentences counts in neither share."""
    found = figures([_turn(-1, 1000), _turn(-1, 1500), _turn(0.2, 0), _turn(-1, 500, sentences=2)])
    assert (found.interrupts.count, found.interrupts.total) == (1, 1)
    assert (found.interrupts_all.count, found.interrupts_all.total) == (2, 3)


def test_selectivity_counts_replies_that_go_on_and_the_yield_latency_those_that_end() -> None:
    """Sounds over a reply count for selectivity, interruptions for the yields; each has its own share."""
    over = [_outcome("go-on", went_on=True), _outcome("go-on", went_on=False, yield_s=0.1)]
    stops = [_outcome("yield", went_on=False, yield_s=0.2), _outcome("yield", went_on=True)]
    found = figures([*over, *stops])
    assert found.selectivity.share == 0.5
    assert found.yields.share == 0.5
    assert found.yield_p95_s.value == 0.2
    assert found.yield_p95_s.count == 1


def test_a_sound_that_is_answered_while_the_agent_is_idle_is_counted() -> None:
    """Of two background sounds, one was answered."""
    found = figures([_outcome("ignore"), _outcome("ignore", answered_s=0.3)])
    assert (found.background_answered.count, found.background_answered.total) == (1, 2)


def _good() -> list[EventOutcome]:
    turns = [_turn(0.3)] * 19 + [_turn(-0.1)]
    return [*turns, _outcome("yield", yield_s=0.3), *[_outcome("go-on", went_on=True)] * 9, _outcome("go-on")]


def test_the_bars_hold_at_their_limits() -> None:
    """5% interruptions, a yield of 0.3 s and 90% selectivity pass."""
    assert figures(_good()).holds


@pytest.mark.parametrize(
    "worse",
    [
        [_turn(-0.1)],
        [_outcome("yield", yield_s=0.31)],
        [_outcome("yield", went_on=True)],
        [_outcome("go-on", went_on=False)],
    ],
)
def test_one_figure_beyond_its_limit_fails(worse: list[EventOutcome]) -> None:
    """One more interruption, a slow yield, a reply that is never given up, or a lost reply: the bars do not hold."""
    assert not figures([*_good(), *worse]).holds


def test_no_events_do_not_pass() -> None:
    """A run without events of a kind has no figure for it, so its bar is not met."""
    assert not figures([]).holds
    assert not figures([_turn(0.3)]).holds


def test_events_that_could_not_be_played_count_for_nothing() -> None:
    """A fault is not a success and not a failure; it is counted separately."""
    found = figures([*_good(), _outcome("yield", fault="no reply")])
    assert found.holds
    assert found.unplayed == 1


def test_groups_have_their_own_figures() -> None:
    """Figures by longest pause: sounds have no row, and turns without a pause have their own."""
    rows = grouped([_turn(-1, 500), _turn(0.2, 1500), _turn(0.2, 0), _outcome("go-on")], pause_group)
    assert sorted(name for name in rows if name) == [" 500 ms", "1500 ms", "no inserted pause"]
    assert rows[" 500 ms"].interrupts.share == 1


def test_the_quick_subset_has_every_kind_and_is_always_the_same() -> None:
    """About 60 events, of every kind of the split, and the same ones each time."""
    quick = selected(events(), Split.DEVELOPMENT, quick=True)
    every = selected(events(), Split.DEVELOPMENT)
    assert abs(len(quick) - QUICK_EVENTS) <= 15
    assert {event.kind for event in quick} == {event.kind for event in every}
    assert quick == selected(events(), Split.DEVELOPMENT, quick=True)
    assert {event.split for event in every} == {Split.DEVELOPMENT}


def test_sentences_are_counted_by_their_marks_at_the_ends_of_words() -> None:
    """A decimal point does not end a sentence, and the last mark adds none."""
    assert [sentences(text) for text in ("", "One two", "One. Two", "It costs 3.5 dollars.", "No! What?")] == [
        1,
        1,
        2,
        1,
        2,
    ]


def test_the_report_names_bars_and_every_outcome() -> None:
    """The JSON report has the verdict, the figures by kind, what was left out, and one entry per event."""
    event = next(event for event in events() if event.kind == "number")
    made = report([outcome_of(event, answered_s=0.4)], {"flite-slt": 3})
    assert made["holds"] is False
    assert made["by_kind"]["number"]["answered"]["count"] == 1
    assert made["left_out"] == {"flite-slt": 3}
    assert made["outcomes"][0]["event"] == event.id
    assert made["outcomes"][0]["longest_pause_ms"] == max(event.pauses_ms)


def test_stage_times_are_those_of_answers_in_time() -> None:
    """Turns without pauses and with pauses are apart; interrupted and unanswered turns do not count."""
    turns = [
        _turn(0.3, 0, stages_ms={"silence": 100, "tts_first_audio": 50}),
        _turn(0.5, 0, stages_ms={"silence": 200, "tts_first_audio": 70}),
        _turn(-0.4, 0, stages_ms={"silence": 900}),
        _turn(0.9, 500, stages_ms={"silence": 700}),
        _turn(None, 0),
    ]
    whole, pausing = (stage_times(turns, pausing=pausing) for pausing in (False, True))
    assert (whole.turns, pausing.turns) == (2, 1)
    assert whole.stages_ms["silence"][0] == 150
    assert whole.stages_ms["all stages"][0] == 210
    assert list(pausing.stages_ms["all stages"]) == [700, 700]
    assert stage_times([], pausing=False).turns == 0
