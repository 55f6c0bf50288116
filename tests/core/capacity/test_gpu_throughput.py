"""Tests of the throughput of language models on GPUs: against published figures, and where there are none."""

from __future__ import annotations

import pytest

from rejoinder.core.capacity.gpu_throughput import (
    MOST_BATCH,
    PUBLISHED,
    PublishedThroughput,
    card_estimates,
    tokens_per_s,
)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.card}, {row.batch}")
def test_published_figures_are_met_within_a_fifth(row: PublishedThroughput) -> None:
    """The model is within 20% of each published measurement of vLLM."""
    found = tokens_per_s(row.bandwidth_gb_s, row.parameters_b, row.bits, row.batch)
    assert found == pytest.approx(row.tokens_per_s, rel=0.2)


def test_cards_for_a_plan() -> None:
    """3,000 tokens a second of an 8B model in 16 bits need three H100, or twenty-six L4. It does not fit into a T4.

    An H100 generates 1,574 tokens a second with 16 requests, of which 85% are used. An L4 has 9% of its bandwidth.
    """
    found = {estimate.card.name: estimate for estimate in card_estimates(3000, 8, 16)}
    assert (found["H100"].cards, found["L4"].cards) == (3, 26)
    assert found["H100"].batch == pytest.approx(1574, abs=1)
    assert (found["T4"].fits, found["T4"].cards, found["T4"].single) == (False, None, None)


def test_fewer_bits_are_faster_and_fit() -> None:
    """In 8 bits the model fits into a T4, and every card is faster than in 16 bits."""
    wide, narrow = card_estimates(100, 8, 16), card_estimates(100, 8, 8)
    assert all(one.fits for one in narrow)
    assert all((two.batch or 0) > (one.batch or 0) for one, two in zip(wide, narrow, strict=True))


@pytest.mark.parametrize("batch", [0, MOST_BATCH + 1])
def test_a_batch_beyond_the_published_ones_is_refused(batch: int) -> None:
    """No throughput is invented for batches that the published figures do not cover."""
    with pytest.raises(ValueError, match="outside the published figures"):
        tokens_per_s(3350, 8, 16, batch)
