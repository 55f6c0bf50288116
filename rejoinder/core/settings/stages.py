"""The stages' part of the configuration: what each deployment is told about its engine, its resources and its replicas.

Users import all of it from `rejoinder.core.settings.settings`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rejoinder.core.measuring.service_curves import PROFILES, EmulatedStage, EngineProfile, ServiceCurve, profiles
from rejoinder.core.settings.section import Count, Positive, Section
from rejoinder.core.settings.vllm import VllmSettings

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Ray's own label of a node for the card that it has."""


class Resources(Section):
    """What Ray's scheduler is told (bookkeeping only: threads are each engine's own setting)."""

    num_cpus: float = Field(0.1, ge=0)
    num_gpus: float = Field(0, ge=0)
    memory_mb: int = Field(0, ge=0)
    custom: dict[str, float] = Field(default_factory=dict)
    label_selector: dict[str, str] = Field(default_factory=dict)


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


class StageSettings(Section):
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

    @property
    def reservation(self) -> Resources:
        """What Ray's scheduler is told, with what follows from the engine."""
        return self.resources

    @property
    def most_ongoing(self) -> int:
        """Requests that one replica takes at once, as Serve is told."""
        return self.max_ongoing_requests


class VadSettings(StageSettings):
    """Where the voice activity detector runs: inside each host, or as its own deployment."""

    placement: Literal["inline", "deployment"] = "inline"
    call_timeout_s: Positive = 0.5


class TurnDetectorSettings(StageSettings):
    model: str = "smart-turn-v3.2"
    # On shared cores hearing and speaking go first: a verdict that comes too late is decided without (`endpointing`).
    nice: int = Field(10, ge=0, le=19)


class EmulationSettings(Section):
    """An emulated engine: a published `profile`, or a `curve` of one's own; `slots` services run at once, others wait.

    `ignore_cancellation`: a cancelled request keeps its slot until it would have ended, as some engines do.
    `full_stop`: a transcript ends like a sentence, so that words end turns; else it leaves doubt, as no word was heard.
    `marked`: answers name the transcript that they answer, and a voice's pitch the number that it speaks
    (rejoinder/core/measuring/audio_watermark.py).
    """

    profile: str = ""
    curve: ServiceCurve = ServiceCurve()
    slots: int = Field(0, ge=0, description="0: the profile's, or 64")
    seed: int = 1
    ignore_cancellation: bool = False
    full_stop: bool = False
    marked: bool = False
    # A language model's answer, and its pace after the first token (0: the profile's, or 100).
    tokens: Count = 24
    tokens_per_s: float = Field(0, ge=0)
    # Seconds of audio that a voice makes in a second (0: the profile's, or 10).
    speed: float = Field(0, ge=0)

    def resolve(self, stage: EmulatedStage) -> EngineProfile:
        """The engine that this section describes; raises ValueError for a profile that the stage does not have."""
        if self.profile and self.profile not in profiles(stage):
            raise ValueError(f"no profile {self.profile!r} for {stage}; there are {', '.join(profiles(stage))}")
        base = PROFILES[self.profile] if self.profile else EngineProfile(stage, self.curve, self.curve.describe())
        return EngineProfile(
            stage,
            curve=base.curve,
            source=base.source,
            slots=self.slots or base.slots or 64,
            tokens_per_s=self.tokens_per_s or base.tokens_per_s,
            speed=self.speed or base.speed,
        )


class SttSettings(StageSettings):
    """`short_context` decodes with frames for the utterance only; off pads every input to 30 s.

    `first_pass_model` hears first (English only; "" for none), and `model` what it is in doubt of: words whose mean
    log-probability is below `first_pass_min_logprob` (benchmarks/studies/quick_study.py).
    """

    engine: Literal["whisper", "emulated"] = "whisper"
    emulation: EmulationSettings = EmulationSettings()
    model: str = "whisper-base"
    first_pass_model: str = "moonshine-tiny-en"
    first_pass_min_logprob: float = Field(-0.12, le=0)
    language: str = "en"
    compute_type: Literal["int8", "float32"] = "int8"
    # A short turn decodes hardly faster on a second core, which the turn model can use at the same time.
    threads: Count = 1
    short_context: bool = True
    min_frames: int = Field(500, ge=100, le=3000)
    pad_frames: int = Field(100, ge=0, le=1000)
    max_queue: Count = 32
    max_batch: int = Field(4, ge=1, le=32)
    # Of a final transcript. Only what nobody can still wait for: dropped sooner, it would be asked for again, behind
    # all others.
    deadline_s: Positive = 30.0
    # A hung stage is silence until then; the longest honest decode is 30 s of speech with full padding, about 2 s.
    call_timeout_s: Positive = 4.0

    @property
    def hears_twice(self) -> bool:
        """Whether a small model hears first: there is one for English only."""
        return self.engine == "whisper" and bool(self.first_pass_model) and self.language == "en"


class LlmSettings(StageSettings):
    """`embedded` runs a small GGUF model on the CPU, through llama.cpp; `vllm` runs any model that vLLM can, in the
    replica (section `vllm`); `openai_api` calls any OpenAI-compatible server.
    """

    engine: Literal["embedded", "vllm", "openai_api", "emulated"] = "embedded"
    emulation: EmulationSettings = EmulationSettings()
    # A name in the model store; for vllm also a folder, or a repository of the model hub.
    model: str = "smollm2-135m-instruct"
    vllm: VllmSettings = VllmSettings()
    # llama.cpp's threads spin while they wait for each other: of two, one that shares its core holds up both (several
    # times the time of one alone). More only on cores that nothing else uses.
    threads: Count = 1
    # Answers that decode together, one token of each a step (embedded).
    slots: int = Field(4, ge=1, le=256)
    # Of a conversation whose state is still there, only what is new is computed (embedded).
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
    # Tell openai_api which prompts begin alike, so that it finds their state (not a server that refuses the field).
    cache_hint: bool = True

    @property
    def reads_ahead(self) -> bool:
        """Whether the engine keeps the state of a prompt that it was only shown."""
        if self.engine == "vllm":
            return self.vllm.enable_prefix_caching
        return self.engine == "embedded" and self.reuse_state

    @property
    def reservation(self) -> Resources:
        """With vLLM's cards: as many as it spreads the model over, on a node that has the kind named."""
        card = self.vllm.profile
        if self.engine != "vllm" or card is None:
            return self.resources
        wanted = self.resources.num_gpus or self.vllm.tensor_parallel_size
        labels = {ACCELERATOR_LABEL: card.accelerator} | self.resources.label_selector
        return self.resources.model_copy(update={"num_gpus": wanted, "label_selector": labels})

    @property
    def on_card(self) -> bool:
        return self.reservation.num_gpus > 0

    @property
    def most_ongoing(self) -> int:
        """At least what vLLM decodes together or lets wait, or its places would stay empty."""
        if self.engine != "vllm":
            return self.max_ongoing_requests
        return max(self.max_ongoing_requests, self.vllm.places(on_card=self.on_card) + self.max_queue)

    @model_validator(mode="after")
    def _backend(self) -> LlmSettings:
        if self.engine == "openai_api" and not self.base_url:
            raise ValueError("engine openai_api needs base_url, for example http://127.0.0.1:8001/v1")
        return self

    @model_validator(mode="after")
    def _cards(self) -> LlmSettings:
        given, wanted = self.reservation.num_gpus, self.vllm.tensor_parallel_size
        if self.engine != "vllm" or given == wanted or (wanted == 1 and given == 0):
            return self
        if wanted > 1 or given > 1:
            raise ValueError(f"resources.num_gpus {given:g} and vllm.tensor_parallel_size {wanted} must be equal")
        if self.vllm.gpu_memory_utilization > given:
            raise ValueError(
                f"vllm.gpu_memory_utilization {self.vllm.gpu_memory_utilization:g} is more than the share of a card "
                f"that resources.num_gpus {given:g} takes: lower it to that"
            )
        return self


class TtsSettings(StageSettings):
    engine: Literal["piper", "emulated"] = "piper"
    emulation: EmulationSettings = EmulationSettings()
    model: str = "piper-en-us-joe-medium"
    threads: Count = 2
    max_queue: Count = 16
    chunk_ms: int = Field(200, ge=20, le=1000)
    # A segment is heard as soon as its first part is synthesized; off: when all of it is.
    chunked: bool = True
    # For each chunk: a hung stage is silence until then.
    call_timeout_s: Positive = 3.0
