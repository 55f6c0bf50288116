"""Our part of the configuration, parsed once into frozen models; unknown keys are refused at every level.

It is the `args` of the one application in `ray_config.yaml` (see `rejoinder.core.settings.serve_file`): the model
`Settings`.
Every field's unit is in its name; its default fits a two-core machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, model_validator

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.answer_cache import AnswerCacheSettings
from rejoinder.core.settings.barge_in import BargeInSettings
from rejoinder.core.settings.degradation import DegradationSettings
from rejoinder.core.settings.noise import NoiseSettings
from rejoinder.core.settings.openings import Opening, Openings
from rejoinder.core.settings.section import Count, Fraction, Positive, Section
from rejoinder.core.settings.stages import (
    Autoscaling,
    EmulationSettings,
    LlmSettings,
    Resources,
    StageSettings,
    SttSettings,
    TtsSettings,
    TurnDetectorSettings,
    VadSettings,
)
from rejoinder.core.settings.vllm import SpeculativeDecoding, VllmSettings

__all__ = [
    "AnswerCacheSettings",
    "Autoscaling",
    "BargeInSettings",
    "BreakerSettings",
    "ConversationSettings",
    "Count",
    "DegradationSettings",
    "EmulationSettings",
    "EndpointingSettings",
    "Fraction",
    "HedgingSettings",
    "HostSettings",
    "InterimTranscriptSettings",
    "LlmSettings",
    "ModelStoreSettings",
    "NoiseSettings",
    "Opening",
    "Positive",
    "Resources",
    "Section",
    "Settings",
    "SpeculationSettings",
    "SpeculativeDecoding",
    "SpeechSettings",
    "StageSettings",
    "SttSettings",
    "TtsSettings",
    "TurnDetectorSettings",
    "VadSettings",
    "VllmSettings",
    "config_error",
    "parse_settings",
]


Texts = Annotated[tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...], Field(max_length=32)]


class SpeechSettings(Section):
    """Voice activity hysteresis. Defaults: the latency guide's optimized column (section 1.3) where it has one."""

    threshold: Fraction = 0.5
    release_threshold: Fraction = 0.35
    # Of a window that is much quieter than the utterance, and of one in which nothing of it is left
    # (rejoinder/core/turns/speech_detector.py); both 0: loudness does not count.
    drop_20db_threshold: Fraction = 0.6
    drop_30db_threshold: Fraction = 0.98
    min_speech_ms: float = Field(96, ge=32, le=1000)
    # One window: the network smooths by itself, so 64 makes 2% fewer soft ends and costs every turn 32 ms
    # (docs/latency.md).
    soft_end_ms: float = Field(32, ge=32, le=1000)
    prefix_padding_ms: float = Field(300, ge=0, le=2000)
    max_utterance_s: float = Field(30, ge=1, le=30)

    @model_validator(mode="after")
    def _hysteresis(self) -> SpeechSettings:
        if self.release_threshold > self.threshold:
            raise ValueError(f"release_threshold {self.release_threshold} is above threshold {self.threshold}")
        return self


class EndpointingSettings(Section):
    """semantic_vad's decision: the silence that a budget of false cut-offs demands of a turn that may be complete."""

    min_silence_ms: float = Field(100, ge=0, le=2000)
    max_silence_ms: Positive = 2000
    complete_threshold: Fraction = 0.3
    # The probability that a turn is taken while the caller only pauses (rejoinder/core/turns/endpointing.py).
    cut_off_budget: float = Field(0.025, gt=0, lt=1)
    # The mean pause inside a turn of a caller who is not known yet (benchmarks/studies/turn_curves.py).
    pause_ms: Positive = 220
    # The guide's End-of-Turn Delay, optimized column (400-600 ms): the wait when no turn model answers in time.
    fallback_silence_ms: Positive = 500
    verdict_timeout_ms: Positive = 400
    # The turn model is asked when silence has lasted so long (what it was trained on), or sooner if the transcript is
    # there and leaves doubt. Many pauses inside a turn are over by then, and the reply waits for the transcript anyway.
    ask_after_ms: float = Field(200, ge=0, le=2000)
    # A transcript that is there before the verdict and reads finished (rejoinder/core/turns/transcript_ending.py)
    # decides with this
    # probability, and the question is withdrawn; 0 leaves every decision to the turn model, asked at once.
    finished_probability: Fraction = 0.9

    @model_validator(mode="after")
    def _ordered(self) -> EndpointingSettings:
        if not self.min_silence_ms <= self.fallback_silence_ms <= self.max_silence_ms:
            raise ValueError("needs min_silence_ms <= fallback_silence_ms <= max_silence_ms")
        return self


class InterimTranscriptSettings(Section):
    """Transcripts of an utterance that is still going on: what two of them agree on the language model reads ahead.

    Without an engine that can (`LlmSettings.reads_ahead`) there are none.
    """

    enabled: bool = True
    every_ms: float = Field(400, ge=100, le=5000)
    # Guess as soon as the voice dips, too, and begin the reply with that guess if the dip was the end.
    at_dips: bool = True
    # Of the time that somebody speaks, at most this share is spent on guesses: the pause grows with the decode.
    share: float = Field(0.4, gt=0, le=1)
    # After failures the pause doubles up to this.
    max_interval_ms: float = Field(5000, ge=100, le=60_000)


class SpeculationSettings(Section):
    """Drafts: replies begun at the soft end, before the turn is taken; nothing of one leaves the host before that."""

    enabled: bool = True
    # Of one turn: a caller who pauses more often is waited for.
    max_per_turn: Count = 3
    # No draft is begun while so many replies of the host, drafts among them, are not audible yet: they go first.
    max_concurrent: Count = 16
    # Drafts that come to nothing: at most this share of the answered turns, and `waste_cap` more.
    waste_budget: float = Field(0.5, ge=0, le=10)
    waste_cap: Positive = 10.0


class ConversationSettings(Section):
    instructions: str = (
        "You are a helpful voice assistant on a phone call. Answer in one or two short spoken sentences."
    )
    # Turns in the prompt, word for word: at least so many; they leave `context_drop_turns` at a time.
    context_turns: int = Field(4, ge=0, le=100)
    context_drop_turns: int = Field(4, ge=1, le=100)
    # Turns that leave are summarized beside the conversation, in at most so many words; 0: they are forgotten. Off by
    # default: a summary by the default model, 135 million parameters, says things that nobody said.
    summary_words: int = Field(0, ge=0, le=500)
    max_reply_tokens: int = Field(60, ge=1, le=4096)
    temperature: float = Field(0.0, ge=0, le=2)
    # The first segment is as short as the next one's expected synthesis allows, within these
    # (rejoinder/core/reply/first_segment.py).
    first_segment_min_words: int = Field(3, ge=1, le=50)
    first_segment_words: int = Field(5, ge=1, le=50)
    segment_words: int = Field(24, ge=1, le=200)
    playout_lead_ms: float = Field(320, ge=20, le=5000)
    apology: str = "Sorry, I had a problem. One moment, please."
    # A failed stage is retried this long before the apology clip is played.
    apology_after_ms: float = Field(700, ge=0, le=10_000)
    # A turn whose stage stays away is given up after this long, with a second apology and response.done failed.
    give_up_after_s: Positive = 60.0
    # Said when a session begins, as soon as it is configured or the caller is heard; "": nothing.
    greeting: str = Field("", max_length=300)
    # Synthesized when a host starts, as the greeting and the apology are; a reply's segment with these words is spoken
    # from there.
    phrases: Texts = ("Yes.", "No.", "Sure.", "Of course.", "Okay.", "Thank you.", "You're welcome.", "Goodbye.")
    # With the first that fits what the caller said an answer begins at once, and the model goes on behind it (actors/
    # opening.py). None by default: they suit a service, not a conversation.
    openings: Openings = ()
    # Said, in turns, if the first audio of an answer is predicted later than `filler_after_ms` after the caller's last
    # speech (0: never).
    fillers: Texts = ("Let me see.", "One moment.", "Just a second.")
    filler_after_ms: float = Field(1500, ge=0, le=60_000)


class HedgingSettings(Section):
    """Hedged LLM requests (load-facts section 5): the second goes out after a quantile of recent TTFT."""

    enabled: bool = True
    budget: Fraction = 0.04
    budget_cap: Positive = 10.0
    min_samples: Count = 100
    first_token_deadline_ms: Positive = 600
    min_delay_ms: Positive = 20
    max_delay_ms: Positive = 2000
    window_s: Positive = 30.0
    # No hedge goes out while every other replica is known to have so many requests: it would only wait there.
    veto_queue: Count = 8
    cancel_timeout_s: Positive = 1.0


class BreakerSettings(Section):
    """When a language model replica is taken out, and for how long (rejoinder/core/resilience/circuit_breaker.py)."""

    enabled: bool = True
    # Nobody has heard a token from it for so long, or for `silence_factor` usual times to first token if that is more.
    silence_ms: Positive = 700
    silence_factor: Positive = 3.0
    # Requests that broke in a row.
    failures: Count = 3
    # Until it is probed; doubled by every probe that is not answered.
    pause_s: Positive = 2.0


class HostSettings(Section):
    """The session host: the ingress deployment that owns the conversations."""

    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling(target_ongoing_requests=64)
    max_sessions: Count = 100
    retry_after_s: Positive = 5.0
    # The longest pause between two voice activity ticks of a busy host: it delays every edge of speech.
    tick_ms: float = Field(10, ge=4, le=128)
    max_windows_per_tick: int = Field(4, ge=1, le=32)
    audio_ring_s: float = Field(40, ge=5, le=300)
    send_queue_events: int = Field(512, ge=16, le=10_000)
    session_max_s: Positive = 3600.0
    graceful_shutdown_timeout_s: Positive = 900.0
    health_check_period_s: Positive = 5.0
    health_check_timeout_s: Positive = 10.0
    max_loop_lag_ms: Positive = 2000
    # A host that is so late for two seconds on end takes no more calls: those within would pay for them.
    refuse_at_loop_lag_ms: Positive = 100
    # A host whose loop is so late is near its end, whatever it counts: add one.
    scale_at_loop_lag_ms: Positive = 50
    metrics_port: int = Field(0, ge=0, le=65535)
    api_keys_env: str = "REJOINDER_API_KEYS"


class ModelStoreSettings(Section):
    """Where weights lie; an empty directory means the user's cache (`~/.cache/rejoinder/models`)."""

    directory: str = ""
    manifest: str = ""


class Settings(Section):
    """Everything Rejoinder reads: the `args` of the Serve application."""

    models: ModelStoreSettings = ModelStoreSettings()
    host: HostSettings = HostSettings()
    vad: VadSettings = VadSettings()
    turn_detector: TurnDetectorSettings = TurnDetectorSettings()
    stt: SttSettings = SttSettings()
    llm: LlmSettings = LlmSettings()
    # Another backend: hedges and failover go there, and back to `llm` if that fails too. None: to `llm`'s replicas.
    llm_backup: LlmSettings | None = None
    tts: TtsSettings = TtsSettings()
    speech: SpeechSettings = SpeechSettings()
    endpointing: EndpointingSettings = EndpointingSettings()
    interim_transcripts: InterimTranscriptSettings = InterimTranscriptSettings()
    speculation: SpeculationSettings = SpeculationSettings()
    conversation: ConversationSettings = ConversationSettings()
    hedging: HedgingSettings = HedgingSettings()
    breaker: BreakerSettings = BreakerSettings()
    barge_in: BargeInSettings = BargeInSettings()
    noise: NoiseSettings = NoiseSettings()
    answer_cache: AnswerCacheSettings = AnswerCacheSettings()
    degradation: DegradationSettings = DegradationSettings()

    @model_validator(mode="after")
    def _emulations(self) -> Settings:
        self.stt.emulation.resolve("stt")
        self.llm.emulation.resolve("llm")
        if self.llm_backup:
            self.llm_backup.emulation.resolve("llm")
        self.tts.emulation.resolve("tts")
        return self

    @model_validator(mode="after")
    def _cache_language(self) -> Settings:
        if self.answer_cache.enabled and self.stt.language != "en":
            raise ValueError(
                "answer_cache judges English only; set answer_cache.enabled to false, or stt.language to en"
            )
        return self


def parse_settings(args: Mapping[str, Any]) -> Settings:
    """Validate the application's `args`; raises ConfigError naming the first bad field."""
    try:
        return Settings.model_validate(dict(args))
    except ValidationError as error:
        raise config_error(error, "args") from None


def config_error(error: ValidationError, prefix: str) -> ConfigError:
    """The first of the errors, with the path of its field."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in ((prefix,) if prefix else ()) + first["loc"])
    if first["type"] == "extra_forbidden":
        return ConfigError("unknown key.", "Remove it, or check its spelling and indentation.", field=path)
    return ConfigError(f"{first['msg']} (got {first.get('input')!r}).", "Correct this value.", field=path)
