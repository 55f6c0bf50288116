"""Tests of calls that failed in use, with the real engines and synthetic speech, in time that skips idle seconds.

Each call stands for its kind: a telephone number in groups, an address, a booking, a television, babble.
"""

from __future__ import annotations

import asyncio

import pytest

from deployments.local.real_engines import real_host
from deployments.local.skipping_clock import Pace, run_skipping
from loadtest.benches.turn_taking import EventOutcome
from loadtest.turn_corpus.event import CorpusEvent, Expected, Part, Scene
from rejoinder.cli.bench.turn_taking import TurnTakingBench
from rejoinder.core.settings.settings import LlmSettings, Settings
from rejoinder.core.turns.endpointing import AUTO, MAX_WAIT_S

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]

GROUPS = ("My phone number is", "five five five", "zero one two", "three four five six")
ADDRESS = ("My e-mail address is", "anna dot smith", "at example dot com.")
BOOKING = ("I would like to book a table", "for four people", "on Friday evening.")


def _call(name: str, parts: tuple[Part, ...], **fields: object) -> CorpusEvent:
    """Return a call in which the caller speaks `parts`. By default the agent listens, and must answer."""
    base = {"kind": "given", "voice": "piper-joe", "scene": Scene.LISTENING, "expected": Expected.ANSWER}
    return CorpusEvent(f"given-{name}/call", parts=parts, **(base | fields))  # type: ignore[arg-type]  # the fields vary


def _paused(name: str, texts: tuple[str, ...], pause_ms: int) -> CorpusEvent:
    """Return a turn with pauses of `pause_ms` milliseconds between its parts."""
    return _call(name, tuple(Part(text) for text in texts), pauses_ms=(pause_ms,) * (len(texts) - 1))


NUMBER = _paused("number", GROUPS, 800)
PAUSED = {
    "address": _paused("address", ADDRESS, 1200),
    "booking": _paused("booking", BOOKING, 1200),
}
OTHERS = {
    "question over babble": _call(
        "babble",
        (Part("What is the capital of France?"),),
        level_dbfs=-20.0,
        background="babble",
        background_dbfs=-30.0,
    ),
    "television": _call("tv", (Part(clip="television-1"),), voice="", scene=Scene.IDLE, level_dbfs=-35.0),
}


async def _play_all() -> dict[str, EventOutcome]:
    """Have all calls, one after the other, on one host. Return the outcomes by name; numbers by their eagerness."""
    clock = asyncio.get_running_loop().time
    async with real_host(Settings(llm=LlmSettings(nice=0)), clock) as (host, llm):
        auto, low = (TurnTakingBench(host, llm, eagerness, clock) for eagerness in (AUTO, "low"))
        found = {name: await auto.play(call) for name, call in OTHERS.items()}
        found |= {name: await low.play(call) for name, call in PAUSED.items()}
        for eagerness in MAX_WAIT_S:
            found[eagerness] = await TurnTakingBench(host, llm, eagerness, clock).play(NUMBER)
        return found


@pytest.fixture(scope="module")
def outcomes() -> dict[str, EventOutcome]:
    return run_skipping(_play_all(), Pace.CPU)


@pytest.mark.parametrize("eagerness", MAX_WAIT_S)
def test_a_number_in_groups_is_one_turn(outcomes: dict[str, EventOutcome], eagerness: str) -> None:
    """A telephone number in four groups, 0.8 s apart, is one turn: no answer begins before its last digit."""
    assert _answered_in_one_turn(outcomes[eagerness])


@pytest.mark.parametrize("name", PAUSED)
def test_low_eagerness_waits_in_long_pauses(outcomes: dict[str, EventOutcome], name: str) -> None:
    """With the eagerness "low", pauses of 1.2 s in an e-mail address and in a booking are waited for."""
    assert _answered_in_one_turn(outcomes[name])


def _answered_in_one_turn(found: EventOutcome) -> bool:
    """Return True if no turn ended before the caller's last word, and an answer came after it."""
    return found.commits == 0 and found.answered_s is not None and found.answered_s > 0


def test_a_question_over_babble_is_answered(outcomes: dict[str, EventOutcome]) -> None:
    """A question at -20 dBFS over babble at -30 dBFS is answered, although the babble never stops."""
    assert outcomes["question over babble"].answered_s is not None


def test_a_television_is_not_answered(outcomes: dict[str, EventOutcome]) -> None:
    """A television at -35 dBFS, while nobody speaks to the agent, gets no answer."""
    assert outcomes["television"].answered_s is None
