"""Our part of the configuration, parsed once into frozen models; unknown keys are refused at every level.

It is the `args` of the one application in `ray_config.yaml` (see `rejoinder.core.serve_file`): the model `Settings`.
Every field's unit is in its name; its default fits a two-core machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rejoinder.core.emulation import PROFILES, Curve, EmulatedStage, Profile, profiles
from rejoinder.core.errors import ConfigError

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Section):
    """What Ray's scheduler is told (bookkeeping only: threads are each engine's own setting)."""

    num_cpus: float = Field(0.1, ge=0)
    num_gpus: float = Field(0, ge=0)
    memory_mb: int = Field(0, ge=0)
    custom: dict[str, float] = {}
    label_selector: dict[str, str] = {}


class Autoscaling(Section):
    """Serve's autoscaler, with the intervals voice needs; `max_replicas` equal to `min_replicas` fixes the count."""

    min_replicas: Count = 1
    max_replicas: Count = 1
    target_ongoing_requests: Positive = 2.0
    # Hosts: this share of the live calls is kept free, since a host takes seconds to start.
    headroom: float = Field(0.1, ge=0, le=2)
    # Stages: work that waits longer than this asks for another replica.
    queue_delay_ms: Positive = 50.0
    upscale_delay_s: float = Field(2.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)
    look_back_period_s: Positive = 8.0
    metrics_interval_s: Positive = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if self.look_back_period_s <= self.metrics_interval_s:
            raise ValueError("look_back_period_s must exceed metrics_interval_s, or Serve averages nothing")
        return self


class Stage(Section):
    """What every stage deployment has in common."""

    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling()
    max_ongoing_requests: Count = 64
    threads: Count = 1
    # Also how long a dead replica goes unnoticed by Serve; the session itself notices at once.
    health_check_period_s: Positive = 1.0
    health_check_timeout_s: Positive = 10.0
    # Fault injection for drills and for the tests of the waterfall: every call waits this long first.
    inject_delay_ms: float = Field(0, ge=0, le=60_000)


class VadStage(Stage):
    """Where the voice activity detector runs: inside each host, or as its own deployment."""

    engine: Literal["silero"] = "silero"
    placement: Literal["inline", "deployment"] = "inline"
    call_timeout_s: Positive = 0.5


class TurnDetectorStage(Stage):
    engine: Literal["smart_turn"] = "smart_turn"
    model: str = "smart-turn-v3.2"
    # On shared cores hearing and speaking go first: a verdict that comes too late is decided without (`endpointing`).
    nice: int = Field(10, ge=0, le=19)


class Emulation(Section):
    """An emulated engine: a published `profile`, or a `curve` of one's own; `slots` services run at once, others wait.

    `ignore_cancellation`: a cancelled request keeps its slot until it would have ended, as some engines do.
    `full_stop`: a transcript ends like a sentence, so that words end turns; else it leaves doubt, as no word was heard.
    """

    profile: str = ""
    curve: Curve = Curve()
    slots: int = Field(0, ge=0, description="0: the profile's, or 64")
    seed: int = 1
    ignore_cancellation: bool = False
    full_stop: bool = False
    # A language model's answer, and its pace after the first token (0: the profile's, or 100).
    tokens: Count = 24
    tokens_per_s: float = Field(0, ge=0)
    # Seconds of audio that a voice makes in a second (0: the profile's, or 10).
    speed: float = Field(0, ge=0)

    def resolve(self, stage: EmulatedStage) -> Profile:
        """The engine that this section describes; raises ValueError for a profile that the stage does not have."""
        if self.profile and self.profile not in profiles(stage):
            raise ValueError(f"no profile {self.profile!r} for {stage}; there are {', '.join(profiles(stage))}")
        base = PROFILES[self.profile] if self.profile else Profile(stage, self.curve, self.curve.describe())
        return Profile(
            stage,
            base.curve,
            base.source,
            self.slots or base.slots or 64,
            self.tokens_per_s or base.tokens_per_s,
            self.speed or base.speed,
        )


class SttStage(Stage):
    """`short_context` decodes with frames for the utterance only; off pads every input to 30 s."""

    engine: Literal["whisper", "emulated"] = "whisper"
    emulation: Emulation = Emulation()
    model: str = "whisper-base"
    language: str = "en"
    compute_type: Literal["int8", "float32"] = "int8"
    # A short turn decodes hardly faster on a second core, which the turn model can use at the same time.
    threads: Count = 1
    short_context: bool = True
    min_frames: int = Field(500, ge=100, le=3000)
    pad_frames: int = Field(100, ge=0, le=1000)
    max_queue: Count = 32
    max_batch: int = Field(4, ge=1, le=32)
    deadline_s: Positive = 4.0
    # A hung stage is silence until then; the longest honest decode is 30 s of speech with full padding, about 2 s.
    call_timeout_s: Positive = 4.0


class LlmStage(Stage):
    """`embedded` runs a small model on the CPU; `openai_api` calls any OpenAI-compatible server.

    `runtime` is the embedded engine's: `llama_cpp` reads the GGUF's own 4-bit weights and reuses each conversation's
    state, `ctranslate2` converts them to `compute_type` first and reuses only the standing instructions'.
    """

    engine: Literal["embedded", "openai_api", "emulated"] = "embedded"
    emulation: Emulation = Emulation()
    model: str = "smollm2-135m-instruct"
    runtime: Literal["llama_cpp", "ctranslate2"] = "llama_cpp"
    compute_type: Literal["int8", "float32"] = "int8"
    threads: Count = 2
    # Answers that decode together, one token of each a step (llama_cpp; ctranslate2 has one).
    slots: int = Field(4, ge=1, le=256)
    # Of a conversation whose state is still there, only what is new is computed (llama_cpp).
    reuse_state: bool = True
    # On shared cores an answer is decoded faster than it is spoken, so speaking its first words goes before decoding
    # its last: at 10 the first audio comes in 0.6 of the time it takes beside a decoder of equal priority.
    nice: int = Field(10, ge=0, le=19)
    autoscaling: Autoscaling = Autoscaling(min_replicas=2, max_replicas=2)
    max_queue: Count = 16
    # A small model at a loss repeats itself: the embedded engine says no run of so many tokens twice (0: off).
    no_repeat_ngram: int = Field(4, ge=0, le=20)
    coalesce_ms: float = Field(15.0, ge=0, le=500)
    # For each token; the first is hedged long before.
    call_timeout_s: Positive = 8.0
    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"

    @property
    def reads_ahead(self) -> bool:
        """Whether the engine keeps the state of a prompt that it was only shown."""
        return self.engine == "embedded" and self.runtime == "llama_cpp" and self.reuse_state

    @model_validator(mode="after")
    def _backend(self) -> LlmStage:
        if self.engine == "openai_api" and not self.base_url:
            raise ValueError("engine openai_api needs base_url, for example http://127.0.0.1:8001/v1")
        return self


class TtsStage(Stage):
    engine: Literal["piper", "emulated"] = "piper"
    emulation: Emulation = Emulation()
    model: str = "piper-en-us-joe-medium"
    threads: Count = 2
    max_queue: Count = 16
    chunk_ms: int = Field(200, ge=20, le=1000)
    # A segment is heard as soon as its first part is synthesized; off: when all of it is.
    chunked: bool = True
    # For each chunk: a hung stage is silence until then.
    call_timeout_s: Positive = 3.0


class SpeechSettings(Section):
    """Voice activity hysteresis. Defaults: the latency guide's optimized column (section 1.3) where it has one."""

    threshold: Fraction = 0.5
    release_threshold: Fraction = 0.35
    min_speech_ms: float = Field(96, ge=32, le=1000)
    soft_end_ms: float = Field(64, ge=32, le=1000)
    prefix_padding_ms: float = Field(300, ge=0, le=2000)
    max_utterance_s: float = Field(30, ge=1, le=30)

    @model_validator(mode="after")
    def _hysteresis(self) -> SpeechSettings:
        if self.release_threshold > self.threshold:
            raise ValueError(f"release_threshold {self.release_threshold} is above threshold {self.threshold}")
        return self


class EndpointingSettings(Section):
    """semantic_vad's decision: the silence to wait falls with the probability that the turn is complete."""

    min_silence_ms: float = Field(100, ge=0, le=2000)
    max_silence_ms: Positive = 2000
    complete_threshold: Fraction = 0.5
    # The guide's End-of-Turn Delay, optimized column (400-600 ms): the wait when no turn model answers in time.
    fallback_silence_ms: Positive = 500
    verdict_timeout_ms: Positive = 400
    # The turn model is asked when silence has lasted so long (what it was trained on), or sooner if the transcript is
    # there and leaves doubt. Many pauses inside a turn are over by then, and the reply waits for the transcript anyway.
    ask_after_ms: float = Field(200, ge=0, le=2000)
    # A transcript that is there before the verdict and reads finished (rejoinder/core/endings.py) decides with this
    # probability, and the question is withdrawn; 0 leaves every decision to the turn model, asked at once. At 0.85 (220
    # ms of silence) it cuts fewer pauses than the turn model asked every time, by quick and slow transcripts
    # (docs/density.md).
    finished_probability: Fraction = 0.85

    @model_validator(mode="after")
    def _ordered(self) -> EndpointingSettings:
        if not self.min_silence_ms <= self.fallback_silence_ms <= self.max_silence_ms:
            raise ValueError("needs min_silence_ms <= fallback_silence_ms <= max_silence_ms")
        return self


class PartialsSettings(Section):
    """Transcripts of an utterance that is still going on: what two of them agree on the language model reads ahead.

    Without an engine that can (`LlmStage.reads_ahead`) there are none.
    """

    enabled: bool = True
    every_ms: float = Field(600, ge=100, le=5000)
    # Of the time that somebody speaks, at most this share is spent on guesses: the pause grows with the decode.
    share: float = Field(0.4, gt=0, le=1)
    # After failures the pause doubles up to this.
    longest_pause_ms: float = Field(5000, ge=100, le=60_000)


class SpeculationSettings(Section):
    """Drafts: replies begun at the soft end, before the turn is taken; nothing of one leaves the host before that."""

    enabled: bool = True
    # Of one turn: a caller who pauses more often is waited for.
    max_per_turn: Count = 3
    # No draft is begun while so many replies of the host, drafts among them, are not audible yet: they go first.
    max_thinking: Count = 16
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
    max_reply_tokens: int = Field(60, ge=1, le=4096)
    temperature: float = Field(0.0, ge=0, le=2)
    first_segment_words: int = Field(5, ge=1, le=50)
    segment_words: int = Field(24, ge=1, le=200)
    playout_lead_ms: float = Field(320, ge=20, le=5000)
    apology: str = "Sorry, I had a problem. One moment, please."
    # A failed stage is retried this long before the apology clip is played.
    apology_after_ms: float = Field(700, ge=0, le=10_000)
    # A turn whose stage stays away is given up after this long, with a second apology and response.done failed.
    give_up_after_s: Positive = 60.0


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
    cancel_timeout_s: Positive = 1.0


class BreakerSettings(Section):
    """When a language model replica is taken out, and for how long (rejoinder/core/breaker.py)."""

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
    vad: VadStage = VadStage()
    turn_detector: TurnDetectorStage = TurnDetectorStage()
    stt: SttStage = SttStage()
    llm: LlmStage = LlmStage()
    tts: TtsStage = TtsStage()
    speech: SpeechSettings = SpeechSettings()
    endpointing: EndpointingSettings = EndpointingSettings()
    partials: PartialsSettings = PartialsSettings()
    speculation: SpeculationSettings = SpeculationSettings()
    conversation: ConversationSettings = ConversationSettings()
    hedging: HedgingSettings = HedgingSettings()
    breaker: BreakerSettings = BreakerSettings()

    @model_validator(mode="after")
    def _emulations(self) -> Settings:
        self.stt.emulation.resolve("stt")
        self.llm.emulation.resolve("llm")
        self.tts.emulation.resolve("tts")
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
