"""Tests that a report names the cause of a bad run first: eight runs of the load generator, each with one fault."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.run import result
from loadtest.generator.worker import Worker
from loadtest.generator.workers import RunProgress
from loadtest.judging.findings import findings
from loadtest.results.result import Counts, RunResult
from loadtest.scenario.clips import write_wave
from loadtest.scenario.scenario import CallerBehavior, Scenario
from loadtest.scenario.schedule import plan
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import Settings
from tests.actors.fakes import ScriptedStt, ScriptedTurn, ToneTts, WordyLlm
from tests.actors.stage_play import SOUND_DECIDES, Play
from tests.loadtest.callers.scene import silence, tone
from tests.loadtest.callers.server import listening
from tests.loadtest.results import sample_results

CALLS = 3
RUN_S = 7.0
AT_ONCE = 3
"""Number of runs at the same time. More would keep the event loop busy, which is a fault of its own."""


def settings(**groups: dict[str, object]) -> Settings:
    """Return settings in which only the turn detector decides about the end of a turn. `groups` change others."""
    return Settings.model_validate({"endpointing": {"table": SOUND_DECIDES, "ask_after_ms": 0}, **groups})


@dataclass(frozen=True)
class Fault:
    """A server with one fault, what its callers say, and the words with which the report names the fault."""

    named: str
    play: Play
    route: str = "local"
    pause_s: float = 0.0
    behavior: CallerBehavior = field(default_factory=lambda: CallerBehavior(think_s=0.3, answer_timeout_s=4.0))


def play(**parts: Any) -> Play:
    """Return fake stages with a short answer. `parts` replaces some of them."""
    return Play(**{"settings": settings(), "llm": WordyLlm("It is."), "stt": ScriptedStt(delay_s=0.05), **parts})


OVERLOADED = BackendError("The provider is overloaded.", stage="llm")
SLOW = {"a": 1.5, "b": 1.5}
FAULTS: dict[str, Callable[[], Fault]] = {
    "late speech to text": lambda: Fault("Speech to text is late", play(stt=ScriptedStt(delay_s=1.0))),
    "late model": lambda: Fault("first token is late", play(llm=WordyLlm("It is.", ttft_s=SLOW))),
    "late voice": lambda: Fault("The voice is late", play(tts=ToneTts(delay_s=0.9))),
    "deaf turn detector": lambda: Fault("turn detector waits too long", play(turn=ScriptedTurn(deque([0.001])))),
    "talkative turn detector": lambda: Fault(
        "takes pauses for the end", play(turn=ScriptedTurn(deque([0.999]))), pause_s=1.0
    ),
    "slow route": lambda: Fault("The network", play(), route="us-asia+relay"),
    "provider's errors": lambda: Fault(
        "provider returns errors",
        play(settings=settings(conversation={"give_up_after_s": 1}), llm=WordyLlm(fault=OVERLOADED)),
    ),
    "too few places": lambda: Fault("no room for these calls", play(settings=settings(host={"max_sessions": 1}))),
}


async def run(fault: Fault, clip_path: Path) -> RunResult:
    """Make calls to the faulty server and return the result as the load generator reports it."""
    write_wave(clip_path, tone(0.6) + (silence(fault.pause_s) + tone(0.6) if fault.pause_s else b"") + silence(0.1))
    async with listening(fault.play) as (url, _):
        scenario = Scenario(
            url,
            CALLS,
            RUN_S,
            clips=(str(clip_path),),
            behavior=fault.behavior,
            regions=(fault.route,),
            ramp_s=0.0,
            warm_up_s=0.0,
            drain_s=6.0,
        )
        frozen = plan(scenario)
        assignment = WorkerAssignment(
            scenario,
            calls=frozen.calls,
            measure_from_s=frozen.measure_from_s,
            measure_to_s=frozen.measure_to_s,
            start_at=0.0,
        )
        progress = RunProgress(RUN_S, time.time())
        await Worker(assignment, time.monotonic(), lambda report: progress.add(0, report)).run()
        return result(scenario, frozen, progress, {}, memory_mb=())


@pytest.mark.timed
async def test_the_report_names_each_fault_first(tmp_path: Path) -> None:
    """Of eight runs, each with another fault of the server or the network, each names its fault first."""
    faults = {name: make() for name, make in FAULTS.items()}
    places = asyncio.Semaphore(AT_ONCE)

    async def held(number: int, fault: Fault) -> RunResult:
        async with places:
            return await run(fault, tmp_path / f"{number}.wav")

    runs = [held(number, fault) for number, fault in enumerate(faults.values())]
    first = {
        name: next((f"{found.cause} {found.evidence}" for found in findings(done)), "nothing")
        for name, done in zip(faults, await asyncio.gather(*runs), strict=True)
    }
    assert {name: cause for name, cause in first.items() if faults[name].named not in cause} == {}


def test_a_good_run_has_no_finding() -> None:
    """A run of which every stage is within the guide's limits and no turn is lost has nothing wrong."""
    assert findings(sample_results.result(whole_ms=300.0)) == ()


def test_gaps_come_from_the_voice_if_the_network_is_even() -> None:
    """Underruns over an even network mean that speech is made slower than it is played."""
    counts = Counts(sessions_opened=3, turns=50, answered=50, underruns=60, underrun_s=5.0, audio_s=100.0)
    (found,) = findings(sample_results.result(whole_ms=300.0, counts=counts))
    assert found.cause == "The voice is slower than its speech."


def test_gaps_come_from_the_network_if_delivery_varies() -> None:
    """Underruns mean a lossy network if the delivery of the first audio takes 100 ms longer at p95 than usual."""
    counts = Counts(sessions_opened=3, turns=50, answered=50, underruns=60, underrun_s=5.0, audio_s=100.0)
    good = sample_results.result(whole_ms=300.0, counts=counts)
    uneven = good.latencies | {"delivery": replace(good.latencies["delivery"], p95_ms=400.0)}
    assert findings(replace(good, latencies=uneven))[0].cause == "The network loses or delays packets."


def test_a_busy_machine_is_not_taken_for_a_network() -> None:
    """On one machine, without an emulated route, delivery that varies does not mean a lossy network."""
    counts = Counts(sessions_opened=3, turns=50, answered=50, underruns=60, underrun_s=5.0, audio_s=100.0)
    good = sample_results.result(whole_ms=300.0, counts=counts, regions=())
    uneven = good.latencies | {"delivery": replace(good.latencies["delivery"], p95_ms=400.0)}
    assert findings(replace(good, latencies=uneven))[0].cause == "The voice is slower than its speech."


@pytest.mark.parametrize(
    ("counts", "cause"),
    [
        ({"interruptions": 20, "late_yields": 4}, "The agent talks on while its caller speaks."),
        ({"false_interruptions": 4}, "Sounds other than the caller's speech stop the agent."),
        ({"responses": 60, "responses_failed": 5}, "A stage or its provider returns errors."),
    ],
)
def test_a_bad_conversation_has_its_cause(counts: dict[str, int], cause: str) -> None:
    """A talkative agent, one that stops for nothing, and errors that cost no turn are named first."""
    found = findings(sample_results.result(whole_ms=300.0, counts=Counts(turns=50, answered=50, **counts)))
    assert found[0].cause == cause
    assert str(next(reversed(counts.values()))) in found[0].evidence


def test_what_callers_notice_comes_before_what_is_late() -> None:
    """Answered half sentences come before a language model that is late, however late it is."""
    counts = Counts(sessions_opened=3, turns=50, answered=50, premature=6, cut_off=5)
    causes = [found.cause for found in findings(sample_results.result(whole_ms=3000.0, counts=counts))]
    assert causes == [
        "The turn detector takes pauses for the end of a turn.",
        "The language model's first token is late.",
    ]
