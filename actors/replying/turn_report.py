"""The report at the end of a reply: stage times and facts, for Rejoinder's clients, the metrics and the journal."""

from __future__ import annotations

from actors.replying.reply import Reply
from actors.replying.requests import CommittedTurn
from actors.stages.ports import TurnTrace
from actors.stages.services import Services
from actors.stages.session_context import SessionContext
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.measuring.waterfall import Waterfall, waterfall
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseStatus


def report(services: Services, turn: CommittedTurn | None, reply: Reply, status: ResponseStatus) -> Json:
    """Record the end of a reply in metrics and journal; return the `rejoinder` field of response.done.

    The field has these facts:

    - `interrupted`: whether the reply was cancelled. `stop_ms`: time from the arrival of the interrupting speech until
      the reply stopped.
    - `hedged`: whether a hedge was sent. `drafted`: whether the reply was speculative. `opened`: whether it began with
      an opening.
    - `cache`: outcome of the answer cache lookup. `degradation`: measures in force for the reply.
    - `answer_from_ms`: length of the audio before the answer (an apology, a filler).
    - `filler_ms`: time from the caller's last speech to a filler. `llm_total_ms`: time from the request to the language
      model until its last delta.
    - `engines`: name of the engine of each stage.
    - Only if a turn was answered audibly or in text: `item_id` of the turn, `speech_end_ms` (position of the end of
      speech in the caller's audio), `server_ms` (total time), `unattributed_ms`, `stages_ms` (each stage's share) and
      `raw_ms` (each stage's full duration).

    Args:
        services: Receivers of the measurements.
        turn: The turn that was answered; None if the reply answers no turn.
        reply: The reply.
        status: The status of its response on the wire.
    """
    filler_started_at = reply.fillers.filler_started_at
    facts: Json = {
        "interrupted": status == "cancelled",
        "stop_ms": None if reply.stop_s is None else round(reply.stop_s * 1000, 1),
        "hedged": reply.generation.hedged,
        "drafted": reply.drafted,
        "cache": reply.generation.cache,
        "opened": reply.generation.opened,
        "degradation": sorted(measure.value for measure in reply.measures),
        "answer_from_ms": reply.answer_from_ms,
        "filler_ms": None
        if turn is None or filler_started_at is None
        else round((filler_started_at - turn.speech_ended_at) * 1000, 1),
        "llm_total_ms": reply.generation.total_ms,
        "engines": services.stages.engines,
    }
    if turn and reply.first_output_at is not None:
        times = waterfall(turn.marks, turn.speech_ended_at, reply.first_output_at)
        facts |= _timing(turn, times)
        by_engines = not (reply.generation.cache or "").startswith("hit") and not reply.generation.opened
        if by_engines:
            reply.plan.degradation.observe(times, drafted=reply.drafted)
        if status in ("completed", "incomplete"):
            stages_s = {stage.value: seconds for stage, seconds in times.stages_s.items()}
            raw_s = {stage.value: seconds for stage, seconds in times.raw_s.items()}
            if by_engines:
                services.latency_estimator.observe(times.raw_s, services.clock())
            services.metrics.turn(times.total_s, stages_s, raw_s=raw_s, engines=services.stages.engines)
    services.journal.write("replied", facts | {"status": status, "text": reply.answer})
    return facts


def trace_of(context: SessionContext, turn: CommittedTurn, reply: Reply, status: ResponseStatus) -> TurnTrace:
    """Return the times and facts of a turn whose reply has ended, for a trace.

    Args:
        context: The session.
        turn: The turn that was answered.
        reply: The reply.
        status: The status of its response on the wire.
    """
    services = context.services
    ended_at = services.clock() if reply.first_output_at is None else reply.first_output_at
    facts: dict[str, str | bool] = {
        "rejoinder.response_id": reply.plan.events.response_id,
        "rejoinder.item_id": turn.item.id,
        "rejoinder.status": status,
        "rejoinder.interrupted": status == "cancelled",
        "rejoinder.hedged": reply.generation.hedged,
        "rejoinder.drafted": reply.drafted,
        "rejoinder.cache": reply.generation.cache or "",
    }
    facts |= {f"rejoinder.engine.{stage}": engine for stage, engine in services.stages.engines.items()}
    if services.settings.host.trace_texts:
        heard = [item.text or "" for item in context.conversation if item.id == turn.item.id]
        facts |= {"rejoinder.heard": " ".join(heard), "rejoinder.answer": reply.answer}
    spans = turn.marks.spans(ended_at)
    return TurnTrace(
        context.config.traceparent,
        session_id=context.id,
        began_at=turn.speech_ended_at,
        ended_at=ended_at,
        stages={stage.value: span for stage, span in spans.items()},
        attributes=facts,
        failed=status == "failed" or (reply.first_output_at is None and status != "cancelled"),
    )


def _timing(turn: CommittedTurn, times: Waterfall) -> Json:
    stages = times.as_ms()
    return {
        "item_id": turn.item.id,
        "speech_end_ms": round(turn.command.speech_end * 1000 / STT_RATE, 1),
        "server_ms": round(times.total_s * 1000, 1),
        "unattributed_ms": stages.pop("unattributed"),
        "stages_ms": stages,
        "raw_ms": {stage.value: round(seconds * 1000, 1) for stage, seconds in times.raw_s.items()},
    }
