"""Tests of the waterfall, which divides a turn's time among stages so that the parts sum to the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Marks, Stage, Waterfall, waterfall

Spans = dict[Stage, tuple[float, float]]
SPEECH_END = 100.0
DURATIONS = st.fixed_dictionaries({stage: st.floats(0, 2) for stage in Stage})
instants = st.floats(-1, 5)


def marked(spans: Spans) -> Marks:
    marks = Marks()
    for stage, (start, end) in spans.items():
        marks.start(stage, start)
        marks.end(stage, end)
    return marks


def turn(durations: dict[Stage, float]) -> Waterfall:
    """Return the waterfall of a turn whose stages have these durations in seconds.

    After the silence, ENDPOINT and STT begin together. The other stages follow one after another.
    """
    soft_end = SPEECH_END + durations[Stage.SILENCE]
    spans = {
        Stage.SILENCE: (SPEECH_END, soft_end),
        Stage.ENDPOINT: (soft_end, soft_end + durations[Stage.ENDPOINT]),
        Stage.STT: (soft_end, soft_end + durations[Stage.STT]),
    }
    now = max(spans[Stage.ENDPOINT][1], spans[Stage.STT][1])
    for stage in (Stage.LLM_FIRST_TOKEN, Stage.FIRST_SEGMENT, Stage.TTS_FIRST_AUDIO, Stage.DELIVERY):
        spans[stage] = (now, now + durations[stage])
        now += durations[stage]
    return waterfall(marked(spans), SPEECH_END, now)


def test_parallel_time_counts_for_the_earlier_stage() -> None:
    """If two stages run at the same time, that time counts for the one that is earlier in the pipeline.

    The later stage gets only the time after the other has ended.
    """
    spans = {Stage.ENDPOINT: (0.0, 0.1), Stage.STT: (0.0, 0.15)}
    result = waterfall(marked(spans), 0.0, 0.15)
    assert result.stages_s[Stage.ENDPOINT] == pytest.approx(0.1)
    assert result.stages_s[Stage.STT] == pytest.approx(0.05)
    assert result.raw_s[Stage.STT] == pytest.approx(0.15)


def test_uncovered_time_is_unattributed() -> None:
    """Time in which no stage was running is unattributed."""
    spans = {Stage.STT: (0.1, 0.2), Stage.DELIVERY: (0.25, 0.3)}
    result = waterfall(marked(spans), 0.0, 0.4)
    assert result.unattributed_s == pytest.approx(0.25)
    assert result.as_ms()[UNATTRIBUTED] == 250.0


def test_marks_outside_the_interval_are_clipped() -> None:
    """A stage's share counts only time within the measured interval. Its raw duration counts all of its time."""
    result = waterfall(marked({Stage.STT: (-1.0, 0.5)}), 0.0, 0.3)
    assert result.stages_s[Stage.STT] == 0.3
    assert result.raw_s[Stage.STT] == 1.5


def test_an_open_stage_lasts_until_the_finish() -> None:
    """A stage that was started and not ended lasts until the end of the measured interval."""
    marks = Marks()
    marks.start(Stage.LLM_FIRST_TOKEN, 0.2)
    assert waterfall(marks, 0.0, 1.0).stages_s[Stage.LLM_FIRST_TOKEN] == 0.8


def test_the_first_of_repeated_marks_counts() -> None:
    """If a stage is started and ended twice, its first start and its first end count."""
    marks = Marks()
    for now in (0.0, 0.3):
        marks.start(Stage.TTS_FIRST_AUDIO, now)
    for now in (0.5, 0.9):
        marks.end(Stage.TTS_FIRST_AUDIO, now)
    assert waterfall(marks, 0.0, 1.0).stages_s[Stage.TTS_FIRST_AUDIO] == 0.5


def test_an_end_without_a_start_is_unattributed() -> None:
    """A stage with an end mark and no start mark gets no time; that time counts as unattributed."""
    marks = Marks()
    marks.end(Stage.STT, 0.5)
    assert waterfall(marks, 0.0, 1.0).unattributed_s == 1.0


def test_json_names_come_in_pipeline_order() -> None:
    """`as_ms` has every stage in pipeline order, also stages without marks, in milliseconds rounded to 0.1 ms."""
    shares = waterfall(marked({Stage.STT: (0.0, 0.12344)}), 0.0, 0.12344).as_ms()
    assert list(shares) == [*(stage.value for stage in Stage), UNATTRIBUTED]
    assert shares["stt"] == 123.4


@given(st.dictionaries(st.sampled_from(Stage), st.tuples(instants, instants)), instants, instants)
def test_shares_are_a_partition(spans: Spans, begin: float, finish: float) -> None:
    """For any marks, the stages' shares and the unattributed time are not negative and sum to the measured interval."""
    result = waterfall(marked(spans), begin, finish)
    assert all(share >= 0 for share in result.stages_s.values())
    assert result.unattributed_s >= 0
    assert sum(result.stages_s.values()) + result.unattributed_s == result.total_s
    assert result.total_s == pytest.approx(max(0.0, finish - begin), abs=1e-9)
    assert all(share <= result.raw_s.get(stage, 0.0) + 1e-9 for stage, share in result.stages_s.items())


@given(DURATIONS)
def test_a_whole_turn_is_attributed(durations: dict[Stage, float]) -> None:
    """A turn whose stages follow each other without a gap has no unattributed time."""
    assert turn(durations).unattributed_s == pytest.approx(0, abs=1e-9)


@given(DURATIONS, st.sampled_from(Stage), st.floats(0, 2))
def test_a_slower_stage_is_the_only_one_that_grows(durations: dict[Stage, float], slow: Stage, delay: float) -> None:
    """If one stage is delayed, only that stage's share grows.

    Its share grows by at most the delay, and by at least the time by which the turn became longer.
    """
    before, after = turn(durations), turn(durations | {slow: durations[slow] + delay})
    growth = {stage: after.stages_s[stage] - before.stages_s[stage] for stage in Stage}
    assert all(grown <= 1e-9 for stage, grown in growth.items() if stage is not slow)
    assert after.total_s - before.total_s - 1e-9 <= growth[slow] <= delay + 1e-9


@given(DURATIONS, st.sampled_from(Stage), st.floats(0, 2))
def test_a_stage_on_the_critical_path_grows_by_exactly_its_delay(
    durations: dict[Stage, float], slow: Stage, delay: float
) -> None:
    """If a delay of one stage makes the turn longer by as much, the stage's share grows by exactly the delay."""
    before, after = turn(durations), turn(durations | {slow: durations[slow] + delay})
    if after.total_s - before.total_s >= delay - 1e-12:
        assert after.stages_s[slow] - before.stages_s[slow] == pytest.approx(delay, abs=1e-9)
