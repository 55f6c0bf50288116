"""What is wrong with a run, worst first: the cause of each missed limit, its evidence, and the first thing to try.

Counted faults come first, in this order: refused calls, answered half sentences, replies that do not stop or stop for
nothing, errors, gaps in the audio. A caller notices them most, and each may cause those behind it. Stages that are
later than the latency guide allows follow, ordered by the milliseconds above their limit. Unanswered turns without an
error come last: they are mostly the effect of such a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loadtest.judging.verdicts import (
    ANSWERED_SHARE,
    FINISHED_SHARE,
    SETUP_SHARE,
    SOUND_SHARE,
    UNDERRUN_SHARE,
    UNDISTURBED_SHARE,
    YIELD_SHARE,
)
from loadtest.results.result import RunResult
from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

ROUTE_TIP = "deployment region: serve the callers from a nearer region (see Regions below)."

TIPS: Mapping[str, str] = {
    Stage.SILENCE.value: "speech.soft_end_ms: lower it to start work after a shorter silence (minimum 32 ms).",
    Stage.ENDPOINT.value: "endpointing.min_silence_ms, fallback_silence_ms: lower the wait before an end of turn, with "
    "and without the turn model's answer.",
    Stage.STT.value: "stt.autoscaling.min_replicas, stt.threads: add replicas if transcriptions queue, or threads if "
    "each uses one core.",
    Stage.LLM_FIRST_TOKEN.value: "llm.autoscaling.min_replicas, hedging.budget: add replicas if requests queue, or "
    "raise the hedging budget if single requests stall.",
    Stage.FIRST_SEGMENT.value: "conversation.first_segment_words: lower it to speak the first segment sooner.",
    Stage.TTS_FIRST_AUDIO.value: "tts.autoscaling.min_replicas, conversation.first_segment_words: add replicas if "
    "requests queue, or shorten the first segment.",
    Stage.DELIVERY.value: ROUTE_TIP,
    UNATTRIBUTED: "host.autoscaling.max_replicas, host.max_sessions: add hosts or lower the sessions per host, because "
    "the host's event loop is late.",
}
"""Advice for each stage that is late: a setting of ray_config.yaml and what to do with it."""

_CAUSES: Mapping[str, str] = {
    Stage.SILENCE.value: "The end of speech is detected late.",
    Stage.ENDPOINT.value: "The turn detector waits too long before it ends a turn.",
    Stage.STT.value: "Speech to text is late.",
    Stage.LLM_FIRST_TOKEN.value: "The language model's first token is late.",
    Stage.FIRST_SEGMENT.value: "The language model is slow after its first token.",
    Stage.TTS_FIRST_AUDIO.value: "The voice is late.",
    Stage.DELIVERY.value: "The network between the callers and the server is slow.",
    UNATTRIBUTED: "The session host's event loop is late.",
}

_BUDGETS: tuple[tuple[tuple[str, ...], tuple[Component, ...]], ...] = (
    ((Stage.SILENCE.value, Stage.ENDPOINT.value), (Component.VAD,)),
    ((Stage.STT.value,), (Component.STT,)),
    ((Stage.LLM_FIRST_TOKEN.value, Stage.FIRST_SEGMENT.value), (Component.LLM,)),
    ((Stage.TTS_FIRST_AUDIO.value,), (Component.TTS,)),
    ((Stage.DELIVERY.value,), (Component.NETWORK, Component.AUDIO)),
    ((UNATTRIBUTED,), (Component.AUDIO,)),
)
"""Stages and the components of the latency guide (section 3.2) whose limits together are the budget of their sum."""

UNEVEN_MS = 100.0
"""A route is lossy if the time of delivery at p95 exceeds its median by more than this number of milliseconds."""

NETWORK_MS = 20.0
"""Callers reach the server over a network, and not on one machine, if p95 of the pings' round trips is at least this
number of milliseconds."""


@dataclass(frozen=True, slots=True)
class FaultFinding:
    """One cause of missed limits.

    Attributes:
        cause: The cause, in one sentence.
        evidence: The measured figures and their limit, in one sentence.
        tip: The first thing to try.
    """

    cause: str
    evidence: str
    tip: str


def findings(result: RunResult) -> tuple[FaultFinding, ...]:
    """Return the causes of the missed limits of a run, worst first. Empty if nothing exceeds its limit."""
    late = sorted(_late(result), key=lambda pair: -pair[0])
    return (*_counted(result), *(found for _, found in late), *_unanswered(result))


def _counted(result: RunResult) -> Iterator[FaultFinding]:
    """Yield each fault that occurred in a larger share of the calls or turns than its limit allows."""
    counts = result.counts
    called = counts.sessions_opened + counts.sessions_refused + counts.sessions_failed
    for bad, total, least, finding in (
        (
            counts.sessions_refused + counts.sessions_failed,
            called,
            SETUP_SHARE,
            FaultFinding(
                "The system has no room for these calls, or cannot be reached.",
                f"{counts.sessions_refused} of {called} calls were refused and {counts.sessions_failed} failed.",
                "host.max_sessions, host.autoscaling.max_replicas and admission: add hosts, or offer fewer calls.",
            ),
        ),
        (
            counts.cut_off,
            counts.turns,
            FINISHED_SHARE,
            FaultFinding(
                "The turn detector takes pauses for the end of a turn.",
                f"In {counts.cut_off} of {counts.turns} turns a reply started before the caller had finished.",
                "endpointing.eagerness: lower it, so that a pause is waited for longer.",
            ),
        ),
        (counts.late_yields, counts.interruptions, YIELD_SHARE, _talkative(result)),
        (counts.false_interruptions, counts.answered + counts.interrupted, UNDISTURBED_SHARE, _jumpy(result)),
        *_errors_found(result),
        (round(counts.underrun_s * 1000), round(counts.audio_s * 1000), 1 - UNDERRUN_SHARE, _gaps(result)),
    ):
        if total and bad / total > 1 - least:
            yield finding


def _errors_found(result: RunResult) -> Iterator[tuple[int, int, float, FaultFinding]]:
    """Yield the share of lost turns if the server reported errors, else of responses with an error that were not lost.

    A share is (number of faults, total, smallest share without them that passes, finding).
    """
    counts = result.counts
    lost = counts.failed + counts.unanswered if _errors(result) else 0
    if counts.turns and lost / counts.turns > 1 - ANSWERED_SHARE:
        yield lost, counts.turns, ANSWERED_SHARE, _broken(result)
    else:
        yield counts.responses_failed, counts.responses, SOUND_SHARE, _broken(result)


def _talkative(result: RunResult) -> FaultFinding:
    counts = result.counts
    return FaultFinding(
        "The agent talks on while its caller speaks.",
        f"{counts.late_yields} of {counts.interruptions} interruptions did not stop the reply within 300 ms.",
        "barge_in: check the words and the time that an interruption needs, and that speech to text is in time.",
    )


def _jumpy(result: RunResult) -> FaultFinding:
    counts = result.counts
    heard = counts.answered + counts.interrupted
    return FaultFinding(
        "Sounds other than the caller's speech stop the agent.",
        f"The server silenced {counts.false_interruptions} of {heard} replies although their callers said nothing.",
        "noise and background: suppress noise, or demand more of speech during a reply (barge_in).",
    )


def _errors(result: RunResult) -> str:
    """Return the server's errors in words. Empty if there were none."""
    return " ".join(note for note in result.notes if note.startswith("Server errors"))


def _lost_turns(result: RunResult) -> str:
    counts = result.counts
    return f"{counts.failed} of {counts.turns} turns failed and {counts.unanswered} had no answer."


def _broken(result: RunResult) -> FaultFinding:
    return FaultFinding(
        "A stage or its provider returns errors.",
        f"{result.counts.responses_failed} of {result.counts.responses} responses failed. {_lost_turns(result)}"
        f" {_errors(result)}".strip(),
        "The server's log names the request; check the backend's limits, address and key.",
    )


def _unanswered(result: RunResult) -> Iterator[FaultFinding]:
    """Yield the finding that turns are lost although the server reports no error."""
    counts = result.counts
    lost = counts.failed + counts.unanswered
    if counts.turns and lost / counts.turns > 1 - ANSWERED_SHARE and not _errors(result):
        yield FaultFinding(
            "Turns get no answer in time.",
            _lost_turns(result),
            "See the stages above, or the server's log.",
        )


def _gaps(result: RunResult) -> FaultFinding:
    """Return the cause of gaps in the audio: the route if its delays vary, else the voice."""
    counts = result.counts
    evidence = (
        f"{counts.underruns} underruns are {counts.underrun_s:.1f} s of silence in {counts.audio_s:.0f} s of audio."
    )
    if lossy := _lossy(result):
        return FaultFinding("The network loses or delays packets.", f"{evidence} {lossy}", ROUTE_TIP)
    return FaultFinding(
        "The voice is slower than its speech.",
        evidence,
        "tts.autoscaling.min_replicas, host.max_sessions: add replicas, or admit fewer calls.",
    )


def _lossy(result: RunResult) -> str:
    """Return the evidence, in a sentence, that delays of the network vary. Empty if they do not, or without a network.

    On one machine, delivery varies because the machine is busy.
    """
    ping = result.latencies.get("rtt")
    if not any(region.rtt_ms for region in result.regions) and (ping is None or ping.p95_ms < NETWORK_MS):
        return ""
    delivery = result.latencies.get(Stage.DELIVERY.value)
    if delivery and delivery.p95_ms - delivery.p50_ms > UNEVEN_MS:
        return f"Delivery takes {delivery.p50_ms:.0f} ms at the median and {delivery.p95_ms:.0f} ms at p95."
    measured = [region for region in result.regions if region.p95_ms is not None]
    if len(measured) > 1:
        beyond = {region.name: (region.p95_ms or 0.0) - region.rtt_ms for region in measured}
        worst, best = max(beyond, key=beyond.__getitem__), min(beyond, key=beyond.__getitem__)
        if beyond[worst] - beyond[best] > UNEVEN_MS:
            slower = beyond[worst] - beyond[best]
            return f"Without round trips, p95 on route {worst} is {slower:.0f} ms above that on {best}."
    return ""


def _late(result: RunResult) -> Iterator[tuple[float, FaultFinding]]:
    """Yield each stage that exceeds its budget at the median, with the milliseconds above it."""
    tier = Tier(str(result.scenario["tier"]))
    for stages, components in _BUDGETS:
        medians = {name: result.latencies[name].p50_ms for name in stages if name in result.latencies}
        limit_ms = sum(component_limit_ms(component, tier) for component in components)
        over_ms = sum(medians.values()) - limit_ms
        if medians and over_ms > 0:
            worst = max(medians, key=lambda name: medians[name])
            figures = " and ".join(f"{name} {ms:.0f} ms" for name, ms in medians.items())
            evidence = f"Median of {figures}; the {tier.value} tier allows {limit_ms:.0f} ms."
            yield over_ms, FaultFinding(_CAUSES[worst], evidence, TIPS[worst])
