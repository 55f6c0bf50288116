"""The network of a configuration whose engines are emulated: known from its settings, without measuring them.

What no setting says (the hop to a stage, the host, the caller's machine) comes from a calibration; see
`loadtest.capacity.network_fit.varied`.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import Curved
from loadtest.capacity.turn_network import ReplyModel
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.service_curves import EmulatedStage
from rejoinder.core.reply.playout import CHARACTERS_PER_S
from rejoinder.core.reply.segmenter import Segmenter
from rejoinder.core.settings.settings import LlmSettings, Settings, SttSettings, TtsSettings

LEAST_AUDIO_S = 0.1
"""An emulated voice says nothing shorter."""


def section(settings: Settings, name: EmulatedStage) -> SttSettings | LlmSettings | TtsSettings:
    """The stage's own settings; raises ConfigError unless its engine is emulated."""
    found: dict[str, SttSettings | LlmSettings | TtsSettings] = {
        "stt": settings.stt,
        "llm": settings.llm,
        "tts": settings.tts,
    }
    if found[name].engine != "emulated":
        raise ConfigError(
            f"is {found[name].engine}, whose times only a measurement knows.",
            "Use engine: emulated, or calibrate this configuration.",
            field=f"args.{name}.engine",
        )
    return found[name]


def stage(settings: Settings, name: EmulatedStage) -> QueueStage:
    """Replicas, slots and service curve of an emulated stage; it must have a fixed number of replicas."""
    configured = section(settings, name)
    profile = configured.emulation.resolve(name)
    return QueueStage(configured.autoscaling.min_replicas, profile.slots, Curved(profile.curve))


def answer(settings: Settings, words: Sequence[str]) -> ReplyModel:
    """The reply that an emulated language model gives by saying `words` over and over, as the host will segment it."""
    section(settings, "llm")
    llm, tts = settings.llm.emulation.resolve("llm"), settings.tts.emulation.resolve("tts")
    tokens = min(settings.llm.emulation.tokens, settings.conversation.max_reply_tokens)
    pace_s = 1 / llm.tokens_per_s
    burst = max(1, round(settings.llm.coalesce_ms / 1000 / pace_s))
    segmenter = Segmenter(settings.conversation.first_segment_words, settings.conversation.segment_words)
    segments: list[tuple[float, float]] = []
    for number in range(tokens):
        last = number == tokens - 1
        # The first token comes alone, the others in bursts that end with their last one's time.
        sent = min(-(-number // burst) * burst, tokens - 1)
        found = segmenter.push(words[number % len(words)] + ("" if last else " "))
        segments += [(sent * pace_s, _audio_s(text)) for text in (found + segmenter.flush() if last else found)]
    return ReplyModel(tuple(segments), (tokens - 1) * pace_s, tts.speed, settings.tts.chunk_ms / 1000)


def _audio_s(text: str) -> float:
    return max(LEAST_AUDIO_S, len(text) / CHARACTERS_PER_S)
