"""Settings of the stages: engine, resources and replicas of each deployment.

Import them from `rejoinder.core.settings.settings`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from rejoinder.core.measuring.service_curves import PROFILES, EmulatedStage, EngineProfile, ServiceCurve, profiles
from rejoinder.core.settings.devices import WHISPER_GPU_TYPES, Device, device_fault
from rejoinder.core.settings.model_reference import check_model_reference
from rejoinder.core.settings.section import Count, Language, Positive, Section, ServerUrl
from rejoinder.core.settings.vllm import VllmSettings

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Label that Ray puts on a node for its kind of GPU."""

VOICE_LANGUAGE = re.compile(r"(?:^|[/_-])([a-z]{2})[_-][a-zA-Z]{2}(?=-)")
"""The language and region in the name of a Piper voice: "en-us" in "piper-en-us-joe-medium"."""

REPEATING_MODELS = {"smollm2-135m-instruct": 4}
"""Models that tend to repeat themselves, with the length of the token sequences that `no_repeat_ngram` blocks."""


class Resources(Section):
    """Resources that each replica reserves with Ray's scheduler.

    A reservation only decides on which node a replica runs. It does not limit what the replica uses. Each engine has a
    setting for its number of threads.
    """

    num_cpus: float = Field(0.1, ge=0)
    """Number of CPU cores to reserve. The small default lets all stages share the cores of a small machine."""
    num_gpus: float = Field(0, ge=0)
    """Number of GPUs to reserve; a fraction shares one GPU. More than 1 only for engine vllm. It must be 0 for the
    session host, for `vad` inside the host and for engine openai_api.
    """
    memory_mb: int = Field(0, ge=0)
    """Memory to reserve, in MiB. 0: no memory is reserved."""
    custom: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources to reserve, by name, as declared with `ray start --resources`."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that the node must have, as declared with `ray start --labels`."""


class Autoscaling(Section):
    """Autoscaling of one deployment by Ray Serve; equal `min_replicas` and `max_replicas` fix the number of replicas.

    The default intervals are shorter than Serve's, because a caller notices seconds of overload.
    """

    min_replicas: Count = 1
    """Minimum number of replicas."""
    max_replicas: Count = 1
    """Maximum number of replicas; at least `min_replicas`."""
    target_ongoing_requests: Positive = 2.0
    """Number of requests that one replica serves at the same time, at most what its engine can; for hosts: calls."""
    headroom: float = Field(0.1, ge=0, le=2)
    """Hosts only: least number of places that are kept free, as a share of the current calls."""
    start_s: float = Field(15, ge=0, le=3600)
    """Hosts only: seconds that a new host takes to come up, its node included. Places are kept free for the calls that
    arrive in this time at the current rate.
    """
    queue_delay_ms: Positive = 50.0
    """Stages only: queueing time in milliseconds that at most 10% of the stage's requests may exceed. The number of
    replicas follows from it, the arrivals and the service times.
    """
    upscale_delay_s: float = Field(2.0, ge=0)
    """Seconds that a need for more replicas must last before they are added."""
    downscale_delay_s: float = Field(120.0, ge=0)
    """Seconds that a need for fewer replicas must last before one is removed."""
    look_back_period_s: Positive = 8.0
    """Seconds over which Serve averages the measurements; more than `metrics_interval_s`."""
    metrics_interval_s: Positive = 2.0
    """Seconds between the measurements of each replica."""
    max_replicas_per_node: int | None = Field(None, ge=1, le=100)
    """Maximum number of replicas on one node, so that a node that dies takes no more. None: no limit."""
    surge_percent: int | None = Field(None, ge=0, le=100)
    """Further replicas, in percent (rounded up), that a deployment of a new version may start before it stops old ones.
    It waits while no node has room for them. 0: old replicas stop first. None: 25, or 0 for replicas that reserve GPUs.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if self.look_back_period_s <= self.metrics_interval_s:
            raise ValueError("look_back_period_s must exceed metrics_interval_s, or Serve averages nothing")
        return self


class StageSettings(Section):
    """Settings that every stage deployment has."""

    resources: Resources = Resources()
    """Resources that each replica reserves on its node."""
    autoscaling: Autoscaling = Autoscaling()
    """Number of replicas, and when it changes."""
    max_ongoing_requests: Count = 64
    """Maximum number of requests that Serve sends to one replica at once, including those in the replica's queue."""
    threads: Count = 1
    """Number of CPU threads of each replica's engine."""
    device: Device = "auto"
    """Where the engine computes. `auto`: on the GPU if `resources.num_gpus` is above 0, else on the CPU. `cuda` needs
    `num_gpus`. The engines vllm, openai_api and emulated do not read it.
    """
    health_check_period_s: Positive = 1.0
    """Seconds between Serve's health checks of a replica. Sessions detect a dead replica at once, without them."""
    health_check_timeout_s: Positive = 10.0
    """Seconds after which an unanswered health check counts as failed."""
    inject_delay_ms: float = Field(0, ge=0, le=60_000)
    """Milliseconds by which every call is delayed: fault injection for drills and tests."""

    @property
    def reservation(self) -> Resources:
        """Resources that each replica reserves, including resources that its engine needs."""
        return self.resources

    @property
    def ongoing_limit(self) -> int:
        """Maximum number of requests that Serve sends to one replica at once."""
        return self.max_ongoing_requests

    @property
    def places(self) -> int:
        """Number of requests that the engine of one replica serves at the same time. Most engines have one thread."""
        return 1

    @property
    def on_gpu(self) -> bool:
        """True if each replica has a GPU, on which its engine computes."""
        return self.reservation.num_gpus > 0

    @model_validator(mode="after")
    def _gpus_usable(self) -> StageSettings:
        if fault := device_fault(getattr(self, "engine", ""), self.device, self.resources.num_gpus):
            raise ValueError(fault)
        return self


class VadSettings(StageSettings):
    """Settings of voice activity detection."""

    placement: Literal["inline", "deployment"] = "inline"
    """`inline` runs inside each session host; `deployment` runs in separate replicas, one network hop away."""
    call_timeout_s: Positive = 0.5
    """Seconds after which an unanswered batch is sent again, to another replica if there is one."""

    @model_validator(mode="after")
    def _gpu_only_of_its_own(self) -> VadSettings:
        if self.on_gpu and self.placement == "inline":
            raise ValueError("placement inline computes in the session host, on the CPU: set placement to deployment")
        return self


class TurnDetectorSettings(StageSettings):
    """Settings of the turn detector, the model that estimates from the audio whether the caller has finished."""

    model: str = "smart-turn-v3.2"
    """Model of the engine: a name in the model store, or the absolute path of the .onnx file or its folder."""
    nice: int = Field(10, ge=0, le=19)
    """Unix nice value of the engine's thread. On shared cores, recognition and synthesis go first. A verdict that comes
    too late is not used (`endpointing.verdict_timeout_ms`).
    """


class EmulationSettings(Section):
    """Emulated engine, which answers without a model, with latencies of a published profile or of your own curve."""

    profile: str = ""
    """Published profile, a name in `rejoinder/core/measuring/service_curves.py`. Empty: `curve` applies."""
    curve: ServiceCurve = ServiceCurve()
    """Service time of a request in milliseconds: median, spread, growth with concurrency, stalls."""
    slots: int = Field(0, ge=0)
    """Number of requests that are served at once. Further ones wait. 0: the number of the profile, or 64."""
    seed: int = 1
    """Seed of the random service times."""
    ignore_cancellation: bool = False
    """True: a cancelled request occupies its slot until it would have ended, as in some real engines."""
    full_stop: bool = False
    """True: transcripts end with a full stop, so that they look complete. False: the turn detector decides."""
    marked: bool = False
    """True: replies name the transcript that they answer, and the pitch of the voice encodes the number that it speaks.
    Tests use this to detect mixed-up conversations (`rejoinder/core/measuring/audio_watermark.py`).
    """
    tokens: Count = 24
    """Language model only: number of tokens in a reply."""
    tokens_per_s: float = Field(0, ge=0)
    """Language model only: tokens per second after the first token. 0: the rate of the profile, or 100."""
    speed: float = Field(0, ge=0)
    """Voice only: seconds of audio that are synthesized per second. 0: the speed of the profile, or 10."""

    def resolve(self, stage: EmulatedStage) -> EngineProfile:
        """Return the emulated engine of a stage: its latency curve, slots and rates, with all defaults filled in.

        Raises:
            ValueError: The stage has no such profile.
        """
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
    """Settings of speech to text.

    For English, a small first-pass recognizer transcribes every utterance. If its confidence is low, Whisper
    transcribes the utterance again.
    """

    engine: Literal["whisper", "emulated"] = "whisper"
    """Engine of the stage: Whisper, or an emulation without a model."""
    emulation: EmulationSettings = EmulationSettings()
    """Latency of the emulated engine."""
    model: str = "whisper-base"
    """Whisper model: a name in the model store, faster-whisper's name of a large model (large-v3, turbo,
    distil-large-v3.5), the absolute path of a faster-whisper folder, or a hub repository with such a model
    (owner/repo).
    """
    first_pass_model: str = "moonshine-tiny-en"
    """First-pass recognizer: a name in the model store. It is used for English only. Empty: no first pass."""
    first_pass_min_logprob: float = Field(-0.12, le=0)
    """Mean log-probability of the first-pass words below which `model` transcribes again
    (benchmarks/studies/first_pass_study.py).
    """
    second_opinion_ms: float = Field(300, ge=0, le=10_000)
    """Milliseconds for which a turn waits for `model` after a first-pass transcript with low confidence. After that the
    first transcript is answered, and the better one only corrects the item. A first transcript that is too bad to be
    answered always waits.
    """
    language: Language = "en"
    """Language of the callers, as a code such as en or de. `auto`: any language that `model` knows, English first. With
    a fixed language, a caller who speaks another one is told so (`conversation.other_language`).
    """
    compute_type: Literal["auto", "int8", "float32", "float16", "int8_float16"] = "auto"
    """Number format of Whisper's weights. `auto`: float16 on a GPU, int8 on the CPU. float16 and int8_float16 (weights
    int8, computation float16) need a GPU.
    """
    threads: Count = 1
    """Number of CPU threads of each replica. A second thread hardly speeds up a short utterance, and the turn detector
    can use that core at the same time.
    """
    short_context: bool = True
    """Encode only as many frames as the utterance needs. Off: pad every utterance to 30 s, as in Whisper's training."""
    min_frames: int = Field(500, ge=100, le=3000)
    """Minimum number of frames (10 ms each) with `short_context`."""
    pad_frames: int = Field(100, ge=0, le=1000)
    """Number of frames (10 ms each) of padding after the utterance with `short_context`."""
    max_queue: Count = 32
    """Maximum number of utterances that wait in a replica. Further ones are refused."""
    max_batch: int = Field(4, ge=1, le=32)
    """Maximum number of utterances that are decoded together."""
    deadline_s: Positive = 30.0
    """Seconds that a final transcript may wait in the queue before it is dropped. The default is long because a dropped
    request is sent again and then waits after all others.
    """
    call_timeout_s: Positive = 4.0
    """Seconds after which a request is sent to another replica. The longest normal decode takes about 2 s: 30 s of
    speech with full padding.
    """

    @field_validator("model")
    @classmethod
    def _loadable(cls, model: str, info: ValidationInfo) -> str:
        return check_model_reference(model, "stt") if info.data.get("engine") == "whisper" else model

    @property
    def places(self) -> int:
        """Number of utterances that one replica transcribes at the same time, in one batch."""
        return self.emulation.resolve("stt").slots if self.engine == "emulated" else self.max_batch

    @property
    def weights(self) -> str:
        """Number format of Whisper's weights, "float16" for example."""
        return self.compute_type if self.compute_type != "auto" else "float16" if self.on_gpu else "int8"

    @model_validator(mode="after")
    def _computable(self) -> SttSettings:
        if self.compute_type in WHISPER_GPU_TYPES and not self.on_gpu:
            raise ValueError(f"compute_type {self.compute_type} needs a GPU: set resources.num_gpus, or int8")
        return self

    @property
    def has_first_pass(self) -> bool:
        """True if a first-pass recognizer is used, which requires the engine Whisper and the language English."""
        return self.engine == "whisper" and bool(self.first_pass_model) and self.main_language == "en"

    @property
    def main_language(self) -> str:
        """The language that is expected first: `language`, or English if it is `auto`."""
        return "en" if self.language == "auto" else self.language


class LlmSettings(StageSettings):
    """Settings of the language model.

    `embedded` runs a GGUF model with llama.cpp, on the CPU or a GPU. `vllm` runs any model that vLLM supports, inside
    the replica. `openai_api` calls any OpenAI-compatible server.
    """

    engine: Literal["embedded", "vllm", "openai_api", "emulated"] = "embedded"
    """Engine of the stage."""
    emulation: EmulationSettings = EmulationSettings()
    """Latency of the emulated engine."""
    model: str = "qwen2.5-coder-0.5b-instruct"
    """Model of the engine: a name in the model store, the absolute path of a GGUF file or its folder, or a GGUF file on
    a hub (owner/repo/file.gguf). With `openai_api`: the server's own name. With `vllm`: a name in the model store, a
    folder, or a hub repository (owner/name).
    """
    vllm: VllmSettings = VllmSettings()
    """Settings of the engine vllm."""
    threads: Count = 1
    """Number of CPU threads of each replica. llama.cpp's threads spin while they wait for each other, so two on shared
    cores take several times as long as one. Use more only on cores that nothing else uses.
    """
    slots: int = Field(4, ge=1, le=256)
    """Maximum number of answers that one replica of the embedded engine decodes together."""
    gpu_layers: int | None = Field(None, ge=1, le=999)
    """Embedded engine on a GPU: number of the model's layers that the GPU computes; the CPU computes the rest. Unset:
    all of them.
    """
    reuse_state: bool = True
    """Embedded engine: keep the KV cache of each conversation, so that a turn computes only its new tokens."""
    chained_calls: bool = False
    """Embedded engine: let the model call a further tool after the result of a tool, and in a reply that answers no
    words of the caller. Off by default, because the default model repeats its call instead of speaking the result.
    """
    nice: int = Field(10, ge=0, le=19)
    """Unix nice value of the replica. On shared cores an answer is decoded faster than it is spoken, so synthesis goes
    first: at 10, the first audio takes 0.6 of the time that it takes at 0.
    """
    autoscaling: Autoscaling = Autoscaling(min_replicas=2, max_replicas=2)
    """Number of replicas, and when it changes. Two by default, so that a slow request can be hedged."""
    max_queue: Count = 16
    """Maximum number of requests that wait for a slot of one replica. Further ones are refused."""
    no_repeat_ngram: int | None = Field(None, ge=0, le=20)
    """Embedded engine: an answer never repeats a sequence of this many tokens. 0: off, so that an answer can read back
    "five five five". Unset: 4 for smollm2-135m-instruct, which tends to repeat itself, and 0 for every other model.
    """
    coalesce_ms: float = Field(15.0, ge=0, le=500)
    """Milliseconds for which tokens are collected before they are sent as one message."""
    call_timeout_s: Positive = 8.0
    """Seconds without a token after which a request is sent to another replica. `hedging` reacts to a late first token
    much sooner.
    """
    base_url: ServerUrl = ""
    """Address of the OpenAI-compatible server, for example http://127.0.0.1:8001/v1. `openai_api` requires it."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the server's API key, for `openai_api`. A server on this machine needs none."""
    cache_hint: bool = True
    """Send `prompt_cache_key` with `openai_api`, so that prompts with the same beginning share the server's cache. Turn
    it off for a server that refuses the field.
    """

    @field_validator("model")
    @classmethod
    def _loadable(cls, model: str, info: ValidationInfo) -> str:
        return check_model_reference(model, "llm") if info.data.get("engine") == "embedded" else model

    @property
    def blocked_ngram(self) -> int:
        """Length in tokens of the sequences that an answer of the embedded engine may not repeat. 0: none."""
        if self.no_repeat_ngram is not None:
            return self.no_repeat_ngram
        return REPEATING_MODELS.get(self.model, 0)

    @property
    def supports_prefill(self) -> bool:
        """True if the engine can compute a prompt in advance and keep its KV cache for a later request (prefill)."""
        if self.engine == "vllm":
            return self.vllm.enable_prefix_caching
        return self.engine == "embedded" and self.reuse_state

    @property
    def judges_message_end(self) -> bool:
        """True if the engine can return the probability that the caller's message ends with the words so far."""
        return self.engine == "embedded" and self.reuse_state

    @property
    def reservation(self) -> Resources:
        """Resources that each replica reserves.

        With the engine vLLM and a GPU in `vllm.gpu`, they include the GPUs and the label of a node with such a GPU.
        """
        gpu = self.vllm.profile
        if self.engine != "vllm" or gpu is None:
            return self.resources
        count = self.resources.num_gpus or self.vllm.tensor_parallel_size
        labels = {ACCELERATOR_LABEL: gpu.accelerator} | self.resources.label_selector
        return self.resources.model_copy(update={"num_gpus": count, "label_selector": labels})

    @property
    def places(self) -> int:
        """Number of answers that one replica generates at the same time. A remote server has no known limit."""
        if self.engine == "emulated":
            return self.emulation.resolve("llm").slots
        if self.engine == "vllm":
            return self.vllm.places(on_gpu=self.on_gpu)
        return self.slots if self.engine == "embedded" else self.max_ongoing_requests

    @property
    def ongoing_limit(self) -> int:
        """Maximum number of requests that Serve sends to one replica at once.

        For vLLM, it is at least the number of requests that a replica decodes together plus `max_queue`.
        """
        if self.engine != "vllm":
            return self.max_ongoing_requests
        return max(self.max_ongoing_requests, self.vllm.places(on_gpu=self.on_gpu) + self.max_queue)

    @model_validator(mode="after")
    def _backend(self) -> LlmSettings:
        if self.engine == "openai_api" and not self.base_url:
            raise ValueError("engine openai_api needs base_url, for example http://127.0.0.1:8001/v1")
        return self

    @model_validator(mode="after")
    def _gpus_match(self) -> LlmSettings:
        reserved, used = self.reservation.num_gpus, self.vllm.tensor_parallel_size
        if self.engine != "vllm" or reserved == used or (used == 1 and reserved == 0):
            return self
        if used > 1 or reserved > 1:
            raise ValueError(f"resources.num_gpus {reserved:g} and vllm.tensor_parallel_size {used} must be equal")
        if self.vllm.gpu_memory_utilization > reserved:
            raise ValueError(
                f"vllm.gpu_memory_utilization {self.vllm.gpu_memory_utilization:g} is more than the share of a GPU "
                f"that resources.num_gpus {reserved:g} reserves: lower it to that"
            )
        return self


class TtsSettings(StageSettings):
    """Settings of text to speech."""

    engine: Literal["piper", "emulated"] = "piper"
    """Engine of the stage: Piper, or an emulation without a model."""
    emulation: EmulationSettings = EmulationSettings()
    """Latency of the emulated engine."""
    model: str = "piper-en-us-joe-medium"
    """Piper voice: a name in the model store, the absolute path of the .onnx file or its folder, or a voice on a hub
    (owner/repo/folder/voice.onnx). The file VOICE.onnx.json must be beside it.
    """
    speaker: int = Field(0, ge=0)
    """Number of the speaker, from 0, of a voice that has several."""
    language: str = Field("auto", pattern=r"^(auto|[a-z]{2})$")
    """Language in which numbers, dates and signs of a reply are spoken: its two-letter code. `auto`: the language in
    the voice's name ("en-us" in `piper-en-us-joe-medium`, "de_DE" in `de_DE-thorsten-medium`), else English."""
    threads: Count = 2
    """Number of CPU threads of each replica's engine."""
    max_queue: Count = 16
    """Maximum number of segments that wait in one replica. Further ones are refused."""
    chunk_ms: int = Field(200, ge=20, le=1000)
    """Milliseconds of audio in one chunk of the stream."""
    chunked: bool = True
    """Stream a segment while it is synthesized. Off: a segment is sent once all of it is synthesized."""
    call_timeout_s: Positive = 3.0
    """Seconds without a chunk after which a segment is requested from another replica."""

    @field_validator("model")
    @classmethod
    def _loadable(cls, model: str, info: ValidationInfo) -> str:
        return check_model_reference(model, "tts") if info.data.get("engine") == "piper" else model

    @property
    def places(self) -> int:
        """Number of segments that one replica synthesizes at the same time."""
        return self.emulation.resolve("tts").slots if self.engine == "emulated" else 1

    @property
    def spoken_language(self) -> str:
        """Code of the language that the voice speaks: two letters, or "und" (undetermined) for the emulated engine."""
        if self.language != "auto":
            return self.language
        if self.engine == "emulated":
            return "und"  # the emulated voice plays tones, which have no language
        named = VOICE_LANGUAGE.search(self.model)
        return named[1].lower() if named else "en"
