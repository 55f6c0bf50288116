"""The caller of `rejoinder bench turn-taking`, in virtual time against a host with fake stages, and its tables."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from deployments.local.real_engines import ScriptedLlm
from loadtest.benches.turn_taking import EventOutcome, figures, outcome_of
from loadtest.turn_corpus import audio as making
from loadtest.turn_corpus.event import CorpusEvent, Expected, Part, Scene
from rejoinder.cli.bench import turn_taking
from rejoinder.cli.bench.turn_tables import comparison, tables
from rejoinder.cli.bench.turn_taking import BenchOptions, TurnTakingBench
from rejoinder.core.audio.pcm import STT_RATE, float_to_pcm16
from rejoinder.core.errors import ConfigError
from tests.actors.fakes import ScriptedStt, ScriptedTurn, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual
from tests.cli.printing import printed_rows

TURN = CorpusEvent(
    "phone-9/flite-slt",
    kind="number",
    voice="flite-slt",
    scene=Scene.LISTENING,
    expected=Expected.ANSWER,
    parts=(Part("five five five"), Part("zero one two.")),
    pauses_ms=(800,),
    level_dbfs=-20.0,
)
OVER = replace(TURN, id="back-9/flite-slt", kind="backchannel", scene=Scene.OVER_REPLY, expected=Expected.GO_ON)
OVER = replace(OVER, parts=(Part("Yeah."),), pauses_ms=())
QUIET = replace(OVER, id="noise-9/idle", kind="noise", voice="", scene=Scene.IDLE, expected=Expected.IGNORE)
QUIET = replace(QUIET, parts=(Part(clip="breath-1"),), level_dbfs=-55.0)
SETUP = "Tell me about London."


@pytest.fixture(autouse=True)
def _tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every synthetic voice speak a tone of 0.6 s, into a cache of this test."""
    tone = 0.2 * np.sin(np.arange(round(0.6 * STT_RATE)) * 0.2)
    monkeypatch.setattr(making, "speak", lambda *_: np.frombuffer(float_to_pcm16(tone), np.int16))
    monkeypatch.setattr(making, "cache_folder", lambda: tmp_path)


def _played(event: CorpusEvent, texts: Sequence[str], complete: float | None = 0.98) -> EventOutcome:
    """Play an event to a host whose recognizer hears `texts` in order and whose turn detector says `complete`."""
    llm = ScriptedLlm(WordyLlm())
    play = Play(stt=ScriptedStt(deque(texts)), turn=ScriptedTurn(deque([complete])), llm=llm)  # type: ignore[arg-type]  # a port, not a fake

    async def plays() -> EventOutcome:
        async with play.open() as host:
            return await TurnTakingBench(host, llm, "auto", asyncio.get_running_loop().time).play(event)

    return run_virtual(plays())


def test_an_answer_in_a_pause_is_an_interruption() -> None:
    """A reply that is audible in a pause of 0.8 s, before the caller's last word, counts as an interruption.

    The turn ends in the pause, because the transcript looks complete.
    """
    outcome = _played(TURN, ["My number is 555.", "My number is 555 012."])
    assert outcome.interrupted
    assert outcome.commits >= 1
    assert outcome.longest_pause_ms == 800


def test_a_pause_that_is_waited_for_is_not_an_interruption() -> None:
    """A comma and a turn detector that is sure to the contrary hold the turn open; the answer comes after the end."""
    outcome = _played(TURN, ["My number is 555,", "My number is 555 012,"], complete=0.05)
    assert not outcome.interrupted
    assert outcome.answered_s is not None
    assert outcome.answered_s > 0
    assert outcome.commits == 0
    assert outcome.heard
    assert sum(outcome.stages_ms.values()) == pytest.approx(outcome.answered_s * 1000, abs=250)


def test_a_reply_goes_on_after_a_backchannel() -> None:
    """ "Yeah." over a reply is dismissed, and the reply is audible again after it."""
    outcome = _played(OVER, [SETUP, "Yeah."])
    assert outcome.fault == ""
    assert outcome.went_on is True
    assert outcome.yield_s is None


def test_a_reply_ends_at_other_words_and_the_time_is_that_of_its_last_sample() -> None:
    """Words over a reply end it; the reply is silent within the time that voice activity needs."""
    outcome = _played(replace(OVER, kind="interruption", expected=Expected.YIELD), [SETUP, "No, I meant Paris."])
    assert outcome.went_on is False
    assert outcome.yield_s is not None
    assert 0.03 <= outcome.yield_s <= 0.3


def test_a_sound_below_the_threshold_is_not_answered() -> None:
    """A quiet breath while the agent is idle gets no reply."""
    outcome = _played(QUIET, [SETUP])
    assert outcome.fault == ""
    assert outcome.answered_s is None


def test_a_sound_that_is_taken_for_a_turn_is_answered() -> None:
    """A loud noise that the recognizer hears as words gets a reply, which is what the bench counts."""
    outcome = _played(replace(QUIET, id="noise-8/idle", level_dbfs=-15.0), [SETUP, "What time is it?"])
    assert outcome.answered_s is not None


def test_an_event_over_a_reply_that_never_came_has_a_fault() -> None:
    """If the question before the event gets no reply, the event was not played, and counts for no figure."""
    outcome = _played(OVER, [""])
    assert outcome.fault
    assert figures([outcome]).unplayed == 1


def test_the_tables_have_this_system_the_bars_and_the_published_panels() -> None:
    """The first table compares with the bars and with published figures; the others have a row for each kind."""
    outcome = _played(TURN, ["My number is 555,"], complete=0.05)
    rows = printed_rows(comparison(figures([outcome])))
    assert rows[0][1] == "0% [0%, 79%] n=1"
    assert rows[1][1:5] == ["<= 5%", "", "<= 0.3 s", ">= 90%"]
    assert [row[0] for row in rows[2:]] == [
        "gpt-realtime-1.5 (published)",
        "xAI realtime (published)",
        "LiveKit cascade (published)",
    ]
    assert printed_rows(tables([outcome], figures([outcome]))[1])[0][0] == "number"


def test_a_stopped_run_continues_with_the_events_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file of outcomes, a second run plays only events without an outcome, and reports all of them."""
    played: list[list[str]] = []

    def measures(events: Sequence[CorpusEvent], _: str, __: object, keep: Callable[[EventOutcome], None]) -> None:
        played.append([event.id for event in events])
        for event in events:
            keep(outcome_of(event, answered_s=0.4))

    monkeypatch.setattr(turn_taking, "measure", measures)
    monkeypatch.setattr(turn_taking, "missing", lambda _: {})
    options = BenchOptions("development", only="phone-", outcomes=tmp_path / "outcomes.jsonl", most=4)
    first = turn_taking.run(options, Console(quiet=True))[1]
    second = turn_taking.run(options, Console(quiet=True))[1]
    assert [len(events) for events in played] == [4, 2]
    assert not set(played[0]) & set(played[1])
    assert len(first["outcomes"]) == 4
    assert len(second["outcomes"]) == 6


@pytest.mark.parametrize(
    "options",
    [BenchOptions("train"), BenchOptions(eagerness="auto?"), BenchOptions(pace="slow"), BenchOptions(only="x-")],
)
def test_an_unknown_option_is_refused(options: BenchOptions) -> None:
    """An unknown split, eagerness or clock, or a selection without events, is an error and not an empty table."""
    with pytest.raises(ConfigError):
        options.events()
