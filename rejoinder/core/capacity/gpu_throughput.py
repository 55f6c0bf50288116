"""Tokens a second of a language model on a GPU, by card, batch and size of the model. Published, not measured here.

The latency guide (section 4.2) orders the cards by words only. So the figures follow from the memory bandwidth of the
cards (`rejoinder.core.capacity.hardware`) and from vLLM benchmarks that others published, `PUBLISHED`. One step of a
batch reads the weights once, at `WEIGHTS_SHARE` of the bandwidth. Each request adds the time of reading `REQUEST_GB`:
its KV cache, and the work that grows with the batch. The two constants fit `PUBLISHED` within 20%, up to `MOST_BATCH`
requests. Beyond that, published figures grow slowly or not at all, so none are given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rejoinder.core.capacity.hardware import GPUS, Gpu, weights_gb

WEIGHTS_SHARE = 0.7
"""Share of the memory bandwidth at which a step reads the weights."""

REQUEST_GB = 0.7
"""Additional time of a step for each request of the batch, as gigabytes to read."""

MOST_BATCH = 16
"""Largest batch whose throughput is computed."""

MOST_USED = 0.85
"""Share of the throughput that a plan uses, as of the slots of a stage."""

MEMORY_SHARE = 0.9
"""Share of a card's memory that vLLM uses. The weights must leave a part of it for the KV cache."""

KV_CACHE_GB = 2.0
"""Least memory for the KV cache in GB: 16 requests of 1,000 tokens at 128 KB a token, as of an 8B model in 16 bits."""

TOKENS_PER_AUDIO_S = 3.3
"""Tokens of a second of speech: 150 words a minute, and 4/3 tokens a word. An assumption."""


@dataclass(frozen=True, slots=True)
class PublishedThroughput:
    """A published measurement of vLLM.

    Attributes:
        card: The card.
        bandwidth_gb_s: Its memory bandwidth in GB/s, from its data sheet.
        parameters_b: Parameters of the model in billions.
        bits: Bits per weight.
        batch: Number of concurrent requests.
        tokens_per_s: Generated tokens a second of all requests together.
        source: Address of the publication.
    """

    card: str
    bandwidth_gb_s: float
    parameters_b: float
    bits: int
    batch: int
    tokens_per_s: float
    source: str


_A100 = "https://johnmusgrave.com/p/vllm-throughput-latency-sweep-on"
_H100 = "https://yobitelcomm.github.io/bench/recipes/concurrency-sweep/"
PUBLISHED = (
    PublishedThroughput("A100 40GB", 1555, 8, 16, batch=1, tokens_per_s=75, source=_A100),
    PublishedThroughput("A100 40GB", 1555, 8, 16, batch=8, tokens_per_s=495, source=_A100),
    PublishedThroughput("H100 80GB", 3350, 8, 16, batch=1, tokens_per_s=122.2, source=_H100),
    PublishedThroughput("H100 80GB", 3350, 8, 16, batch=4, tokens_per_s=580.3, source=_H100),
    PublishedThroughput("H100 80GB", 3350, 8, 16, batch=16, tokens_per_s=1384.2, source=_H100),
)
"""Llama 3.1 8B in 16 bits: on an A100 with vLLM 0.23 (1,024 tokens in, 128 out), on an H100 with vLLM 0.21."""


def tokens_per_s(bandwidth_gb_s: float, parameters_b: float, bits: int, batch: int) -> float:
    """Return the generated tokens a second of all requests of a batch together.

    Args:
        bandwidth_gb_s: Memory bandwidth of the card in GB/s.
        parameters_b: Parameters of the model in billions.
        bits: Bits per weight.
        batch: Number of concurrent requests, 1 to `MOST_BATCH`.

    Raises:
        ValueError: The batch is outside the range of the published figures.
    """
    if not 1 <= batch <= MOST_BATCH:
        raise ValueError(f"a batch of {batch} is outside the published figures. Use 1 to {MOST_BATCH}")
    read_gb = weights_gb(parameters_b, bits) / WEIGHTS_SHARE + REQUEST_GB * batch
    return batch * bandwidth_gb_s / read_gb


@dataclass(frozen=True, slots=True)
class CardEstimate:
    """What a card of the guide could do for a plan, by published figures.

    Attributes:
        card: The card.
        fits: Whether the model and a KV cache fit into the memory of one card.
        single: Tokens a second of a single request. None if the model does not fit.
        batch: Tokens a second of `MOST_BATCH` requests together. None if the model does not fit.
        cards: Cards with which `MOST_USED` of that throughput is enough. None if the model does not fit.
    """

    card: Gpu
    fits: bool
    single: float | None = None
    batch: float | None = None
    cards: int | None = None


def card_estimates(needed_tokens_per_s: float, parameters_b: float, bits: int) -> tuple[CardEstimate, ...]:
    """Return an estimate for each card of the guide, in the guide's order.

    Args:
        needed_tokens_per_s: Tokens a second of the plan.
        parameters_b: Parameters of the model in billions.
        bits: Bits per weight.
    """
    found = []
    for card in GPUS:
        if weights_gb(parameters_b, bits) + KV_CACHE_GB > card.vram_gb * MEMORY_SHARE:
            found.append(CardEstimate(card, fits=False))
            continue
        single = tokens_per_s(card.bandwidth_gb_s, parameters_b, bits, 1)
        batch = tokens_per_s(card.bandwidth_gb_s, parameters_b, bits, MOST_BATCH)
        cards = max(1, math.ceil(needed_tokens_per_s / (batch * MOST_USED)))
        found.append(CardEstimate(card, fits=True, single=single, batch=batch, cards=cards))
    return tuple(found)
