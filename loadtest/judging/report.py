"""The report of a run: one self-contained page, readable offline and in ten years."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from loadtest.judging import plots
from loadtest.results.result import VOICE_TO_VOICE, RunResult
from loadtest.results.turn_record import WATERFALL
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

_TEMPLATE = Path(__file__).with_name("report.html.jinja")

TIPS = {
    Stage.SILENCE.value: "speech.soft_end_ms: work begins after so much silence; 32 ms, one window, is the least.",
    Stage.ENDPOINT.value: "endpointing.min_silence_ms, fallback_silence_ms: the wait at a sure and at an unsure end.",
    Stage.STT.value: "stt.autoscaling.min_replicas, or stt.threads: transcripts wait, or run on one core.",
    Stage.LLM_FIRST_TOKEN.value: "llm.autoscaling.min_replicas and hedging.budget: first tokens wait, or stall.",
    Stage.FIRST_SEGMENT.value: "conversation.first_segment_words: fewer words are spoken sooner.",
    Stage.TTS_FIRST_AUDIO.value: "tts.autoscaling.min_replicas, or a smaller conversation.first_segment_words.",
    Stage.DELIVERY.value: "where callers are: serve them from a nearer region; see the regions below.",
    UNATTRIBUTED: "host.autoscaling.max_replicas and host.max_sessions: the host's own loop is late.",
}
"""What to try first for each stage; keys of ray_config.yaml."""


@dataclass(frozen=True, slots=True)
class LargestStage:
    """The stage with the largest share of the average turn."""

    stage: str
    share: float
    switch: str


def largest_stage(found: RunResult) -> LargestStage | None:
    """By the mean, which sums over stages; None if no turn was divided."""
    means = {name: found.latencies[name].mean_ms for name in WATERFALL if name in found.latencies}
    total = sum(means.values())
    if not total:
        return None
    stage = max(means, key=lambda name: means[name])
    return LargestStage(stage, means[stage] / total, TIPS[stage])


def html(found: RunResult) -> str:
    """The page of one run."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    names = (*WATERFALL, VOICE_TO_VOICE, "eou", "audio", "rtt", "stop", "setup")
    return template.render(
        found=found,
        rows=[(name, found.latencies[name]) for name in names if name in found.latencies],
        raw=[(name, row) for name, row in sorted(found.latencies.items()) if name.startswith("raw:")],
        largest=largest_stage(found),
        curves=plots.percentile_curves(found) if found.latencies else "",
        waterfall=plots.waterfall(found) if largest_stage(found) else "",
        timeline=plots.timeline(found) if found.timeline else "",
    )
