"""Emulated service times: how long an emulated engine takes, without a clock and with injected randomness.

Emulated engines serve to measure the system around the engines, not the speed of a model. A curve gives the service
time of one request while `concurrent` requests, this one included, are in service:

    seconds = draw(median, sigma) + per_concurrent * (concurrent - 1) + per_doubling * log2(concurrent) [+ stall]

With `sigma` 0 the draw is always the median, otherwise it is log-normal. Requests are counted in blocks of
1 / stall_share requests. Exactly one request of each block stalls, at a random position in the block. Even a short run
therefore has the configured share of stalls. A curve does not contain the wait for a slot, or refusals:
`deployments/engines/emulated.py` adds them.

Each profile names its source. A profile with a single figure uses the figure as it was published. This project has
fitted the curves that depend on load. A fitted curve is valid only within the range of its data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

_NORMAL = NormalDist()
# Uniform random numbers are clamped to [_LEAST_U, 1 - _LEAST_U], as the inverse normal distribution is infinite at 0
# and 1.
_LEAST_U = 1e-12

EmulatedStage = Literal["stt", "llm", "tts"]
Uniform = Callable[[], float]


@dataclass(frozen=True, slots=True)
class ServiceCurve:
    """Distribution of the service time of one request, which grows with the number of concurrent requests.

    Attributes:
        median_ms: Median time in milliseconds of a request that is alone in service.
        sigma: Standard deviation of the natural logarithm of that time. 0 for a fixed time.
        per_concurrent_ms: Milliseconds added for each other request in service.
        per_doubling_ms: Milliseconds added for each doubling of the number of requests in service.
        stall_share: Share of requests that stall, from 0 to 0.5. A stall is added to the service time.
        stall_min_ms: Shortest stall in milliseconds.
        stall_max_ms: Longest stall in milliseconds.

    Raises:
        ValueError: A value is negative, infinite or out of its range.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # not a field: how pydantic reads this class

    median_ms: float = 100.0
    sigma: float = 0.0
    per_concurrent_ms: float = 0.0
    per_doubling_ms: float = 0.0
    stall_share: float = 0.0
    stall_min_ms: float = 2000.0
    stall_max_ms: float = 8000.0

    def __post_init__(self) -> None:
        for name in ("median_ms", "sigma", "per_concurrent_ms", "per_doubling_ms", "stall_min_ms", "stall_max_ms"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
        if not 0 <= self.stall_share <= 0.5:
            raise ValueError(f"stall_share must be between 0 and 0.5, not {self.stall_share}")
        if self.stall_min_ms > self.stall_max_ms:
            raise ValueError(f"stall_min_ms {self.stall_min_ms} is above stall_max_ms {self.stall_max_ms}")

    def describe(self) -> str:
        """Return the curve in words, for the name of the engine in reports."""
        spread = f" log-normal sigma {self.sigma:g}" if self.sigma else " fixed"
        load = f" +{self.per_concurrent_ms:g} ms a request" if self.per_concurrent_ms else ""
        load += f" +{self.per_doubling_ms:g} ms a doubling" if self.per_doubling_ms else ""
        stall = ""
        if self.stall_share:
            stall = f", {self.stall_share:.1%} stall {self.stall_min_ms / 1000:g}-{self.stall_max_ms / 1000:g} s"
        return f"{self.median_ms:g} ms{spread}{load}{stall}"


class ServiceSampler:
    """Generator of random service times for one emulated engine. Not thread-safe."""

    def __init__(self, curve: ServiceCurve, uniform: Uniform) -> None:
        """Create a sampler. `uniform` returns the next random number in [0, 1)."""
        self._curve = curve
        self._uniform = uniform
        self._block = round(1 / curve.stall_share) if curve.stall_share else 0
        self._place = 0
        self._stall_at = -1

    def next_s(self, concurrent: int) -> float:
        """Return a random service time, in seconds, for the next request.

        Args:
            concurrent: Number of requests in service, including the one whose service starts now.
        """
        curve, uniform = self._curve, self._uniform
        ms = curve.median_ms
        if curve.sigma:
            ms *= math.exp(curve.sigma * _NORMAL.inv_cdf(min(max(uniform(), _LEAST_U), 1 - _LEAST_U)))
        others = max(0, concurrent - 1)
        ms += curve.per_concurrent_ms * others + curve.per_doubling_ms * math.log2(others + 1)
        if self._stalls():
            ms += curve.stall_min_ms + (curve.stall_max_ms - curve.stall_min_ms) * uniform()
        return ms / 1000

    def _stalls(self) -> bool:
        if not self._block:
            return False
        if self._place == 0:
            self._stall_at = int(self._uniform() * self._block)
        stalls = self._place == self._stall_at
        self._place = (self._place + 1) % self._block
        return stalls


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Published figures of one engine.

    Attributes:
        stage: The stage that the engine serves: "stt", "llm" or "tts".
        curve: Its service time: to the final transcript (stt), the first token (llm), or the first audio (tts).
        source: Who published the figures.
        slots: Requests that it serves at the same time. 0 if no limit is published.
        tokens_per_s: Tokens per second of a language model after its first token. Other stages ignore it.
        speed: Seconds of audio that a speech synthesizer makes per second. Other stages ignore it.
    """

    stage: EmulatedStage
    curve: ServiceCurve
    source: str
    slots: int = 0
    tokens_per_s: float = 100.0
    speed: float = 10.0


def _lognormal(median_ms: float, p95_ms: float) -> ServiceCurve:
    """Return the log-normal curve with this median and 95th percentile."""
    return ServiceCurve(median_ms, sigma=round(math.log(p95_ms / median_ms) / _NORMAL.inv_cdf(0.95), 4))


def _between(low_ms: float, high_ms: float) -> ServiceCurve:
    """Return the log-normal curve whose 5th and 95th percentiles are `low_ms` and `high_ms`, a published range."""
    return _lognormal(math.sqrt(low_ms * high_ms), high_ms)


_GUIDE = "latency guide, section"
_BENCHMARK = "Pipecat stt-benchmark, 1,000 samples, median and p95"
_NEMOTRON = "nemotron-voice-agent evaluation, 4xH100, 2026-07; fitted over 1-64 streams"

PROFILES: dict[str, EngineProfile] = {
    # The latency guide's two reference stacks (sections 9.1 and 9.2).
    "guide-800-stt": EngineProfile("stt", ServiceCurve(150), f"{_GUIDE} 9.1: Deepgram Nova-3 streaming, ~150 ms"),
    "guide-800-llm": EngineProfile("llm", ServiceCurve(250), f"{_GUIDE} 9.1: GPT-4o-mini or Gemini Flash, ~250 ms"),
    "guide-800-tts": EngineProfile("tts", ServiceCurve(40), f"{_GUIDE} 9.1: Cartesia Sonic Turbo, ~40 ms"),
    "guide-500-stt": EngineProfile("stt", ServiceCurve(100), f"{_GUIDE} 9.2: Whisper, edge deployment, ~100 ms"),
    "guide-500-llm": EngineProfile(
        "llm", ServiceCurve(130), f"{_GUIDE} 9.2: Mistral 7B self-hosted, ~130 ms", tokens_per_s=170
    ),
    "guide-500-tts": EngineProfile("tts", ServiceCurve(40), f"{_GUIDE} 9.2: Cartesia Sonic Turbo, ~40 ms"),
    # Profiles of hosted speech to text.
    "nemotron-3-stt": EngineProfile("stt", _lognormal(221, 238), _BENCHMARK),
    "deepgram-nova-3-stt": EngineProfile("stt", _lognormal(247, 298), _BENCHMARK),
    "assemblyai-stt": EngineProfile("stt", _lognormal(256, 362), _BENCHMARK),
    "soniox-5-stt": EngineProfile("stt", _lognormal(260, 305), _BENCHMARK),
    "openai-stt": EngineProfile("stt", _lognormal(637, 965), _BENCHMARK),
    "google-stt": EngineProfile("stt", _lognormal(878, 1155), _BENCHMARK),
    "azure-stt": EngineProfile("stt", _lognormal(1016, 1345), _BENCHMARK),
    "aws-stt": EngineProfile("stt", _lognormal(1136, 1527), _BENCHMARK),
    # Profiles of hosted language models, from the ranges that the latency guide states.
    "gpt-4o-mini-llm": EngineProfile("llm", _between(200, 400), f"{_GUIDE} 1.5: 200-400 ms"),
    "gpt-4o-llm": EngineProfile("llm", _between(400, 550), f"{_GUIDE} 1.5: 400-550 ms, 117 tokens/s", tokens_per_s=117),
    "gemini-2.5-flash-llm": EngineProfile(
        "llm", ServiceCurve(390), f"{_GUIDE} 1.5: ~390 ms, 268 tokens/s", tokens_per_s=268
    ),
    # Profiles of hosted text to speech.
    "elevenlabs-flash-2.5-tts": EngineProfile("tts", ServiceCurve(75), f"{_GUIDE} 1.6: 75 ms"),
    # Self-hosted engines whose service times grow with the number of concurrent requests.
    "nvidia-h100-stt": EngineProfile(
        "stt", ServiceCurve(38.6, per_doubling_ms=4.56), f"{_NEMOTRON}: 38.6 + 4.56 log2 n ms", 64
    ),
    "nvidia-h100-llm": EngineProfile(
        "llm",
        ServiceCurve(144, per_concurrent_ms=4.0),
        f"{_NEMOTRON}: first sentence 140 + 4.0 n ms",
        64,
        tokens_per_s=2000,
    ),
    "nvidia-h100-tts": EngineProfile(
        "tts", ServiceCurve(59.76, per_concurrent_ms=0.76), f"{_NEMOTRON}: 59 + 0.76 n ms", 64
    ),
    "cosyvoice2-l20-tts": EngineProfile(
        "tts",
        ServiceCurve(197, sigma=0.1, per_concurrent_ms=119),
        "CosyVoice2 Triton/TensorRT-LLM, one L20: mean 78 + 119 n ms over 1-10 tasks",
        10,
        speed=14,
    ),
    "moss-h20-tts": EngineProfile(
        "tts",
        ServiceCurve(92, per_concurrent_ms=122),
        "MOSS-TTS, one H20 (vllm-omni 4676): 92 ms at 1, 3,864 at 32",
        32,
    ),
    # Engines that process all streams frame by frame. Their time is constant up to the number of slots. They refuse
    # further requests.
    "kyutai-l40s-stt": EngineProfile(
        "stt", ServiceCurve(125), "Kyutai STT on an L40S: 64 slots at 3 times real time", 64
    ),
    "kyutai-l40s-tts": EngineProfile(
        "tts", ServiceCurve(634), "Kyutai TTS on an L40S (moshi 369): 634 ms, flat", 16, speed=2
    ),
}

STACKS: dict[str, dict[EmulatedStage, str]] = {
    "guide-800": {"stt": "guide-800-stt", "llm": "guide-800-llm", "tts": "guide-800-tts"},
    "guide-500": {"stt": "guide-500-stt", "llm": "guide-500-llm", "tts": "guide-500-tts"},
    "nvidia-h100": {"stt": "nvidia-h100-stt", "llm": "nvidia-h100-llm", "tts": "nvidia-h100-tts"},
}
"""Profiles of a whole stack, for `rejoinder serve --emulate NAME`."""


def profiles(stage: EmulatedStage) -> tuple[str, ...]:
    """Return the names of the published engine profiles that emulate this stage."""
    return tuple(name for name, profile in PROFILES.items() if profile.stage == stage)
