"""What a reply reports at its end: the turn's waterfall and facts, for our own clients, the metrics and the journal."""

from __future__ import annotations

from actors.replying.reply import Reply
from actors.replying.requests import CommittedTurn
from actors.stages.services import Services
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.measuring.waterfall import Waterfall, waterfall
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseStatus


def report(services: Services, turn: CommittedTurn | None, reply: Reply, status: ResponseStatus) -> Json:
    """Report it, and return the `rejoinder` field of response.done.

    `drafted`: begun before its turn was taken. `cache`: what the answer cache said. `opened`: it began with an
    opening. `answer_from_ms`: so much of the audio comes before the answer (an apology, a filler). `filler_ms`: from
    the caller's last speech to a filler. `policy`: what it was made without (rejoinder/core/reply/degradation.py).
    """
    filler_at = reply.interlude.filler_at
    facts: Json = {
        "interrupted": status == "cancelled",
        "stop_ms": None if reply.stop_s is None else round(reply.stop_s * 1000, 1),
        "hedged": reply.thought.hedged,
        "drafted": reply.drafted,
        "cache": reply.thought.cache,
        "opened": reply.thought.opened,
        "degradation": sorted(step.value for step in reply.steps),
        "answer_from_ms": reply.answer_from_ms,
        "filler_ms": None if turn is None or filler_at is None else round((filler_at - turn.began) * 1000, 1),
        "llm_total_ms": reply.thought.total_ms,
        "engines": services.stages.engines,
    }
    if turn and reply.first_output_at is not None:
        divided = waterfall(turn.marks, turn.began, reply.first_output_at)
        facts |= _timing(turn, divided)
        by_engines = not (reply.thought.cache or "").startswith("hit") and not reply.thought.opened
        if by_engines:
            reply.plan.policy.observe(divided, drafted=reply.drafted)
        if status in ("completed", "incomplete"):
            stages_s = {stage.value: seconds for stage, seconds in divided.stages_s.items()}
            raw_s = {stage.value: seconds for stage, seconds in divided.raw_s.items()}
            if by_engines:
                services.foresight.observe(divided.raw_s, services.clock())
            services.metrics.turn(divided.total_s, stages_s, raw_s=raw_s, engines=services.stages.engines)
    services.journal.write("replied", facts | {"status": status, "text": reply.answer})
    return facts


def _timing(turn: CommittedTurn, divided: Waterfall) -> Json:
    stages = divided.as_ms()
    return {
        "item_id": turn.item.id,
        "speech_end_ms": round(turn.turn.speech_end * 1000 / STT_RATE, 1),
        "server_ms": round(divided.total_s * 1000, 1),
        "unattributed_ms": stages.pop("unattributed"),
        "stages_ms": stages,
        "raw_ms": {stage.value: round(seconds * 1000, 1) for stage, seconds in divided.raw_s.items()},
    }
