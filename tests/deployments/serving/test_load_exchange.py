"""Tests of the exchange of load: replicas add their load to the answers that session hosts get, and to no others."""

from __future__ import annotations

import asyncio

from actors.stages.ports import LlmRequest, Priority, SttJob, TtsRequest
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.llm import Llm, slots_of
from deployments.serving.load_exchange import NO_EXCHANGE, LoadExchange, WithLoad, tier_limits
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.resilience.stage_load import StageReport
from rejoinder.core.settings.settings import Settings, parse_settings

EMULATED = {"engine": "emulated", "emulation": {"curve": {"median_ms": 5}, "slots": 3, "tokens": 40}}
SPEECH = SttJob(bytes(32_000))


def has_load(answer: object) -> bool:
    """Return True if a replica added its load to the answer. Its methods are typed as if they never did."""
    return isinstance(answer, WithLoad)


def _settings() -> Settings:
    return parse_settings({"stt": EMULATED, "llm": EMULATED, "tts": EMULATED})


class Notes:
    """Keeps the reports that a host gets, as (stage, report)."""

    def __init__(self, live: int = 2) -> None:
        self.reports: list[tuple[str, StageReport]] = []
        self.exchange = LoadExchange("host-1", lambda: live, lambda stage, report: self.reports.append((stage, report)))


async def test_a_host_gets_the_load_with_the_answer() -> None:
    """A unary answer for a host contains the load: slots, busy share, hosts and calls. `unwrap` separates the two."""
    stt, first, second = EmulatedStt(_settings()), Notes(live=2), LoadExchange("host-2", lambda: 5, lambda *_: None)
    await stt.transcribe(SPEECH, second.route("r0"))
    answer = await stt.transcribe(SPEECH, first.exchange.route("r1"))
    assert has_load(answer)
    assert not has_load(first.exchange.unwrap("stt", answer))
    (stage, report), *others = first.reports
    assert (stage, report.slots, report.hosts, report.other_calls, others) == ("stt", 3, 2, 5, [])
    assert report.utilisation > 0


async def test_a_stream_has_the_load_in_its_first_item_only() -> None:
    """Of a stream for a host, the first item contains the load. The other items are plain."""
    settings, notes = _settings(), Notes()
    request = LlmRequest((ChatMessage("user", "Hello"),))
    deltas = [delta async for delta in Llm(settings).generate(request, notes.exchange.route("r1"))]
    chunks = [
        chunk
        async for chunk in EmulatedTts(settings).synthesize(
            TtsRequest("Thank you for calling me."), notes.exchange.route("r2")
        )
    ]
    for items in ([*deltas], [*chunks]):
        assert len(items) > 1
        assert [has_load(item) for item in items] == [True] + [False] * (len(items) - 1)
    assert all(isinstance(notes.exchange.unwrap("tts", chunk), bytes) for chunk in chunks)
    assert [stage for stage, _ in notes.reports] == ["tts"]


async def test_other_callers_get_plain_answers() -> None:
    """Without a route, and with a route that names no host, the answer has no load."""
    stt = EmulatedStt(_settings())
    for route in (None, NO_EXCHANGE.route("r1")):
        assert not has_load(await stt.transcribe(SPEECH, route))


async def test_interim_transcripts_are_not_work_that_turns_wait_for() -> None:
    """An interim transcript counts in the load of a replica, but not in the utilisation that limits the calls."""
    stt, notes = EmulatedStt(_settings()), Notes()
    job = SttJob(bytes(32_000), priority=Priority.INTERIM)
    notes.exchange.unwrap("stt", await stt.transcribe(job, notes.exchange.route("r1")))
    await asyncio.sleep(0)
    report = notes.reports[0][1]
    assert report.utilisation == 0
    assert report.load > 0


def test_every_engine_states_its_slots() -> None:
    """The slots of a language model replica are those of its engine. A remote server's are not known: 0."""
    engines = {"emulated": 3, "embedded": 4, "openai_api": 0}
    for engine, slots in engines.items():
        given = {"emulation": EMULATED["emulation"], "base_url": "http://127.0.0.1:1/v1", "model": "m"}
        assert slots_of(parse_settings({"llm": {"engine": engine, **given}})) == slots


def test_the_limits_are_those_of_the_tier() -> None:
    """The limits of the Good tier are 600 ms for a turn without the wait for its end, and 300 ms for one wait."""
    limits = tier_limits(Tier.GOOD)
    assert (limits.turn_s, limits.wait_s) == (0.6, 0.3)
