"""Queueing model of emulated engines, computed from their settings instead of from measurements.

The settings do not contain the times of the network hop to a stage, of the host and of the caller's machine. These
times come from a calibration (`loadtest.capacity.network_fit.with_calibrated_hops`).
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
"""Minimum length in seconds of a segment from an emulated voice."""


def section(settings: Settings, name: EmulatedStage) -> SttSettings | LlmSettings | TtsSettings:
    """Return the settings of the stage `name`. Raise ConfigError if its engine is not emulated."""
    stages: dict[str, SttSettings | LlmSettings | TtsSettings] = {
        "stt": settings.stt,
        "llm": settings.llm,
        "tts": settings.tts,
    }
    if stages[name].engine != "emulated":
        raise ConfigError(
            f"the service times of engine {stages[name].engine} are only known from a measurement.",
            "Use engine: emulated, or calibrate this configuration.",
            field=f"args.{name}.engine",
        )
    return stages[name]


def emulated_stage(settings: Settings, name: EmulatedStage) -> QueueStage:
    """Return the queueing model of an emulated stage: its replicas, slots and service times.

    The number of replicas is `autoscaling.min_replicas`, so the stage must have a fixed number of replicas.

    Raises:
        ConfigError: The engine of the stage is not emulated.
    """
    configured = section(settings, name)
    profile = configured.emulation.resolve(name)
    return QueueStage(configured.autoscaling.min_replicas, profile.slots, Curved(profile.curve))


def emulated_reply(settings: Settings, words: Sequence[str]) -> ReplyModel:
    """Return the timing of an emulated language model's reply.

    The result states when the text of each segment is complete, and how long its audio is. The text repeats `words` up
    to the reply's number of tokens, one word per token. It is split into segments in the same way as on the host.

    Raises:
        ConfigError: The language model is not emulated.
    """
    section(settings, "llm")
    llm, tts = settings.llm.emulation.resolve("llm"), settings.tts.emulation.resolve("tts")
    tokens = min(settings.llm.emulation.tokens, settings.conversation.max_reply_tokens)
    pace_s = 1 / llm.tokens_per_s
    burst = max(1, round(settings.llm.coalesce_ms / 1000 / pace_s))
    segmenter = Segmenter(
        settings.conversation.first_segment_words,
        settings.conversation.segment_words,
        language=settings.tts.spoken_language,
    )
    segments: list[tuple[float, float]] = []
    for number in range(tokens):
        last = number == tokens - 1
        # The engine sends the first token alone, and the others in bursts of `burst` tokens. A burst is sent when its
        # last token is ready. `sent` is the number, from 0, of the last token in the burst of this token.
        sent = min(-(-number // burst) * burst, tokens - 1)
        parts = segmenter.push(words[number % len(words)] + ("" if last else " "))
        segments += [(sent * pace_s, _audio_s(part.spoken)) for part in (parts + segmenter.flush() if last else parts)]
    return ReplyModel(tuple(segments), (tokens - 1) * pace_s, tts.speed, settings.tts.chunk_ms / 1000)


def _audio_s(text: str) -> float:
    return max(LEAST_AUDIO_S, len(text) / CHARACTERS_PER_S)
