"""Traces of turns with OpenTelemetry: one span for the turn and one for each of its stages.

The spans are made when the turn has ended, from the times that its waterfall is made of, so that nothing is done while
the caller waits. A thread of the SDK exports them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from actors.stages.ports import Tracer, TurnTrace
from rejoinder import __version__
from rejoinder.core.errors import ConfigError

# At run time OpenTelemetry is imported only if tracing is on: it needs the extra `tracing`.
if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORTERS, ENDPOINTS, PROTOCOL = (
    "OTEL_TRACES_EXPORTER",
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
)
OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Names of the OTLP exporters by the standard names of their protocols."""
SERVICE = "rejoinder"
_GROUP = "opentelemetry_traces_exporter"


class OpenTelemetryTracer:
    """`actors.stages.ports.Tracer` over a provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider, clock: Callable[[], float]) -> None:
        """Create a tracer. `clock` returns the monotonic time in seconds of the turns' marks."""
        from opentelemetry.trace import StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer(SERVICE, __version__)
        self._clock = clock
        self._error = StatusCode.ERROR
        self._within = set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract

    def turn(self, trace: TurnTrace) -> None:
        """Make the spans of a turn that has ended."""
        now_ns, now = time.time_ns(), self._clock()

        def wall_ns(at: float) -> int:
            return now_ns - round((now - at) * 1e9)

        parent = self._extract({"traceparent": trace.traceparent}) if trace.traceparent else None
        attributes = {"session.id": trace.session_id} | dict(trace.attributes)
        whole = self._tracer.start_span("turn", parent, attributes=attributes, start_time=wall_ns(trace.began_at))
        if trace.failed:
            whole.set_status(self._error)
        inside = self._within(whole, parent)
        for stage, (start, end) in trace.stages.items():
            self._tracer.start_span(stage, inside, start_time=wall_ns(start)).end(wall_ns(end))
        whole.end(wall_ns(trace.ended_at))


def open_tracer(environment: Mapping[str, str], clock: Callable[[], float]) -> Tracer | None:
    """Return the tracer that the standard OTEL_* environment variables ask for; None if they ask for none.

    Traces are on if OTEL_TRACES_EXPORTER names an exporter, or an OTLP endpoint is set. The SDK reads the other
    variables: service name, sampler, headers, limits.

    Raises:
        ConfigError: A package is missing, or no installed exporter has the name.
    """
    names = _exporters(environment)
    if not names:
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise _missing(names[0]) from None
    named = "OTEL_SERVICE_NAME" in environment or "service.name" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": SERVICE}))
    for name in names:
        found = entry_points(group=_GROUP, name=name)
        if not found:
            raise _missing(name)
        exporter = next(iter(found)).load()
        provider.add_span_processor(BatchSpanProcessor(exporter()))
    return OpenTelemetryTracer(provider, clock)


def _exporters(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters, as packages register them."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    default = "otlp" if any(environment.get(name) for name in ENDPOINTS) else "none"
    names = (name.strip() for name in (environment.get(EXPORTERS) or default).split(","))
    protocol = next((environment[name] for name in PROTOCOL if environment.get(name)), "http/protobuf")
    return [OTLP.get(protocol, protocol) if name == "otlp" else name for name in names if name and name != "none"]


def _missing(name: str) -> ConfigError:
    return ConfigError(
        f"no package for the exporter {name!r} of traces is installed.",
        "Install `pip install -e '.[tracing]'` for OTLP over HTTP, or set OTEL_TRACES_EXPORTER=none.",
        field=EXPORTERS,
    )
