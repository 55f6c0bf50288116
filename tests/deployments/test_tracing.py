"""Tests of the traces of turns, with OpenTelemetry's exporter in memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from deployments.tracing import OpenTelemetryTracer, open_tracer
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.wire.session import SessionConfig
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual
from tests.loadtest.callers.server import listening
from tests.system.harness.wire_caller import calling

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUESTION = "What time is it?"
SPEECH = (np.sin(np.arange(24_000) * 0.2) * 8000).astype("<i2").tobytes()
"""One second of a tone at 24 kHz, which the fake voice activity detection takes for speech."""


class Traced:
    """A play whose turns are traced, and the spans that were made."""

    def __init__(self, **settings: object) -> None:
        provider = TracerProvider()
        self.exporter = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        clock = asyncio.get_running_loop().time
        self.play = Play(
            settings=parse_settings({"host": settings}),
            stt=ScriptedStt(deque([QUESTION])),
            tracer=OpenTelemetryTracer(provider, clock),
        )

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}


def _length_s(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@virtual
async def test_a_turn_is_a_span_with_one_for_each_stage() -> None:
    """The stages are children of the turn and as long as the metrics say; the turn's end is now."""
    traced = Traced()
    async with traced.play.call() as caller:
        done = await caller.say()
    spans = traced.spans
    turn = spans.pop("turn")
    assert {"silence", "stt", "llm_first_token", "tts_first_audio", "delivery"} <= set(spans)
    assert turn.context is not None
    assert all(span.parent is not None and span.parent.span_id == turn.context.span_id for span in spans.values())
    raw_ms = done["rejoinder"]["raw_ms"]
    assert {name: round(_length_s(span) * 1000, 1) for name, span in spans.items()} == pytest.approx(raw_ms, abs=0.2)
    (measured,) = traced.play.metrics.turns
    assert _length_s(turn) * 1000 == pytest.approx(done["rejoinder"]["server_ms"], abs=0.2)
    assert measured
    assert turn.end_time is not None
    assert 0 <= time.time_ns() - turn.end_time < 60e9
    assert turn.parent is None
    assert turn.attributes is not None
    assert turn.attributes["rejoinder.status"] == "completed"
    assert turn.attributes["rejoinder.engine.llm"] == "fake"
    assert str(turn.attributes["session.id"]).startswith("sess_")


@virtual
async def test_a_trace_has_no_words_unless_the_settings_say_so() -> None:
    """Neither the caller's nor the agent's words are in a span by default."""
    for permitted in (False, True):
        traced = Traced(trace_texts=permitted)
        async with traced.play.call() as caller:
            await caller.say()
        exported = " ".join(span.to_json() for span in traced.exporter.get_finished_spans())
        assert (QUESTION in exported) is permitted
        assert ("rejoinder.answer" in exported) is permitted


@virtual
async def test_the_turn_continues_the_trace_of_the_client() -> None:
    """All turns of a call are children of the span that the client named when it connected."""
    traced = Traced()
    config = SessionConfig(traceparent=f"00-{TRACE}-{SPAN}-01")
    async with traced.play.call(config=config) as caller:
        await caller.say()
    turn = traced.spans["turn"]
    assert turn.parent is not None
    assert turn.context is not None
    assert f"{turn.context.trace_id:032x}" == TRACE
    assert f"{turn.parent.span_id:016x}" == SPAN
    assert {f"{span.context.trace_id:032x}" for span in traced.spans.values() if span.context} == {TRACE}


@virtual
async def test_a_client_that_does_not_sample_gets_no_spans() -> None:
    """The client's decision not to record its trace holds for the turns, too."""
    traced = Traced()
    async with traced.play.call(config=SessionConfig(traceparent=f"00-{TRACE}-{SPAN}-00")) as caller:
        await caller.say()
    assert not traced.spans


@virtual
async def test_an_unanswered_turn_is_an_error() -> None:
    """A turn whose reply failed has the status ERROR, and the stages that it reached."""
    traced = Traced()
    traced.play.llm = WordyLlm(dead={"a", "b"})
    async with traced.play.call() as caller:
        await caller.say()
    spans = traced.spans
    assert spans["turn"].status.status_code is StatusCode.ERROR
    assert "stt" in spans
    assert "tts_first_audio" not in spans


@pytest.mark.timed
async def test_the_trace_context_comes_with_the_handshake() -> None:
    """A client sends the header `traceparent` when it connects, and its turn is a span of that trace."""
    traced = Traced()
    async with listening(traced.play) as (url, _):
        address = url.replace("ws", "http", 1).removesuffix("/v1")
        async with calling(address, {"traceparent": f"00-{TRACE}-{SPAN}-01"}) as caller:
            caller.say(SPEECH)
            await caller.until("response.done", timeout_s=20)
    turn = traced.spans["turn"]
    assert turn.parent is not None
    assert f"{turn.parent.span_id:016x}" == SPAN


def test_traces_are_off_without_the_standard_variables() -> None:
    """Without an exporter or an endpoint, with "none", and with a disabled SDK, nothing is traced or imported."""
    for environment in (
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_SERVICE_NAME": "voice"},
    ):
        assert open_tracer(environment, time.monotonic) is None


def test_an_exporter_is_found_by_its_name() -> None:
    """The SDK's own exporter to the console is named by the standard variable."""
    assert isinstance(open_tracer({"OTEL_TRACES_EXPORTER": "console"}, time.monotonic), OpenTelemetryTracer)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OTEL_TRACES_EXPORTER": "nowhere"}, "nowhere"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
    ],
)
def test_a_missing_exporter_is_an_error(environment: dict[str, str], name: str) -> None:
    """An exporter that no installed package has is refused when the host starts, with the package to install."""
    with pytest.raises(ConfigError, match=rf"OTEL_TRACES_EXPORTER: .*'{name}'.*\[tracing\]"):
        open_tracer(environment, time.monotonic)
