"""The latency guide's hardware tables (sections 4.1 to 4.4 and 5) as data: its recommendations and its claims."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Recommended and alternative hardware for one component, with a remark (section 4.1 of the latency guide)."""

    component: str
    recommended: str
    alternative: str
    note: str
    section: str = "4.1"


PLACEMENTS = (
    Placement("WebRTC/SFU", "CPU (high clock)", "CPU", "Network-bound, not GPU"),
    Placement("VAD", "CPU", "Edge TPU", "Silero runs well on CPU"),
    Placement("STT", "GPU (T4/A10G)", "CPU (high core)", "Whisper benefits from GPU"),
    Placement("LLM", "GPU (A100/H100)", "GPU (A10G/L4)", "Must have for production"),
    Placement("TTS", "GPU", "CPU", "Smaller models work on CPU"),
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU (section 4.2 of the guide).

    Attributes:
        name: Its name.
        vram_gb: Its memory in GB.
        pace: The guide's word for its speed, such as "High".
        best_for: The use that the guide recommends it for.
        bandwidth_gb_s: Its memory bandwidth in GB/s, from its data sheet.
        section: The section of the guide.
    """

    name: str
    vram_gb: int
    pace: str
    best_for: str
    bandwidth_gb_s: float
    section: str = "4.2"


GPUS = (
    Gpu("H100", vram_gb=80, pace="Highest", best_for="Production, high concurrency", bandwidth_gb_s=3350),
    Gpu("A100", vram_gb=80, pace="High", best_for="Production, reliable", bandwidth_gb_s=2039),
    Gpu("L4", vram_gb=24, pace="Good", best_for="Cost-efficient, edge", bandwidth_gb_s=300),
    Gpu("A10G", vram_gb=24, pace="Good", best_for="Balanced price/performance", bandwidth_gb_s=600),
    Gpu("T4", vram_gb=16, pace="Moderate", best_for="Entry-level, dev/test", bandwidth_gb_s=320),
)
"""Bandwidths: NVIDIA data sheets of H100 SXM, A100 80GB SXM, L4, A10G (as AWS lists it) and T4."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Speedup of a number format over FP32, and its loss of quality (section 4.2 of the guide).

    Attributes:
        name: Its name.
        bits: Bits per weight.
        least_speedup: Lower end of the guide's range.
        most_speedup: Upper end of the guide's range.
        quality: The guide's words for the loss of quality.
        most_error: Upper end of the loss of quality, as a share from 0 to 1.
        section: The section of the guide.
    """

    name: str
    bits: int
    least_speedup: float
    most_speedup: float
    quality: str
    most_error: float
    section: str = "4.2"


PRECISIONS = (
    Precision("FP32", bits=32, least_speedup=1, most_speedup=1, quality="None", most_error=0.0),
    Precision("FP16", bits=16, least_speedup=2, most_speedup=2, quality="<0.5%", most_error=0.005),
    Precision("INT8", bits=8, least_speedup=3, most_speedup=4, quality="1-2%", most_error=0.02),
    Precision("INT4", bits=4, least_speedup=4, most_speedup=8, quality="3-5%", most_error=0.05),
)


@dataclass(frozen=True, slots=True)
class Ram:
    """Memory that a component needs, in MB (section 4.3 of the guide).

    Attributes:
        component: Its name in the guide.
        minimum_mb: Minimum.
        recommended_mb: Recommendation.
        production_mb: Recommendation for production.
        parameters_b: Parameters of a language model, in billions. 0 for other components.
        section: The section of the guide.
    """

    component: str
    minimum_mb: int
    recommended_mb: int
    production_mb: int
    parameters_b: float = 0.0
    section: str = "4.3"


RAM = (
    Ram("LiveKit Server", 2000, 4000, 8000),
    Ram("Agent Worker", 4000, 8000, 16000),
    Ram("VAD (Silero)", 500, 1000, 1000),
    Ram("STT (Whisper)", 4000, 8000, 12000),
    Ram("LLM (7B model)", 16000, 24000, 32000, parameters_b=7),
    Ram("LLM (70B model)", 80000, 128000, 256000, parameters_b=70),
    Ram("TTS", 2000, 4000, 8000),
)

SESSION_ROWS = (10, 100, 1_000, 10_000)
"""Numbers of concurrent agents for which section 4.4 has a row."""

JOBS_PER_WORKER = (10, 20)
"""Values of max_concurrent_jobs (sessions of one agent worker) in sections 5.2 and 5.5."""


def weights_gb(parameters_b: float, bits: int) -> float:
    """Return the size of a model's weights in GB.

    Args:
        parameters_b: Parameters of the model, in billions.
        bits: Bits per weight.
    """
    return parameters_b * bits / 8


def decode_bound_tokens_per_s(bandwidth_gb_s: float, parameters_b: float, bits: int) -> float:
    """Return the maximum tokens per second of one answer, limited by memory bandwidth.

    The GPU reads all weights from memory once for each token.

    Args:
        bandwidth_gb_s: Memory bandwidth in GB/s.
        parameters_b: Parameters of the model, in billions.
        bits: Bits per weight.
    """
    return bandwidth_gb_s / weights_gb(parameters_b, bits)
