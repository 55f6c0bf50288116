"""Limits held against measurements, with confidence.

"p95 is below 1,200 ms" says that at most 5% of all turns exceed 1,200 ms. Of n turns k exceeded it. If the share of
turns that exceed were 5% or more, so few would have been seen with a probability of at most P(X <= k), X binomial:
below 5% the claim is proved (PASS). If it were 5% or less, so many would have been seen with at most P(X >= k): below
5% it is disproved (FAIL). Otherwise more turns are needed (UNDECIDED), and the verdict says how many if they behave as
before.
To claim a p99 with no violation takes 299 turns, with one 473 (load-facts, section 2).

What is a census of the run and no sample (were the calls set up, was every turn answered) is compared as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hdrh.histogram import HdrHistogram
from scipy.stats import binom

from loadtest.callers.turn_outcomes import AUDIO, EOU, RAW
from loadtest.results.result import VOICE_TO_VOICE, Counts, RunOutcome, Verdict
from rejoinder.core.capacity.budgets import ALERTS, Component, Metric, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.measuring.waterfall import Stage

SIGNIFICANCE = 0.05
MAX_NEEDED = 1_000_000
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

# Our own additions to the guide's limits (load-facts, section 2).
SETUP_SHARE = 0.995
ANSWERED_SHARE = 0.99
UNDERRUN_SHARE = 0.005

COMPONENT_SERIES: Mapping[Component, tuple[str, ...]] = {
    Component.NETWORK: ("rtt",),
    Component.VAD: (EOU,),
    Component.STT: (RAW + Stage.STT.value,),
    Component.LLM: (RAW + Stage.LLM_FIRST_TOKEN.value,),
    Component.TTS: (RAW + Stage.TTS_FIRST_AUDIO.value,),
    Component.AUDIO: (AUDIO,),
}
"""Which measured series stands for each of the guide's components; see `loadtest.callers.turn_outcomes` for EOU and
AUDIO.
"""

METRIC_SERIES: Mapping[Metric, str] = {
    Metric.END_TO_END: VOICE_TO_VOICE,
    Metric.STT: RAW + Stage.STT.value,
    Metric.LLM_TTFT: RAW + Stage.LLM_FIRST_TOKEN.value,
    Metric.TTS_TTFB: RAW + Stage.TTS_FIRST_AUDIO.value,
    Metric.NETWORK_RTT: "rtt",
    Metric.END_TO_END_P95: VOICE_TO_VOICE,
    Metric.END_TO_END_P99: VOICE_TO_VOICE,
}

Series = Mapping[str, HdrHistogram]


def judge(violations: int, turns: int, quantile: float) -> tuple[RunOutcome, int]:
    """Is the quantile below the limit that so many of the turns exceeded? The second value: turns still needed."""
    allowed = 1 - quantile
    if turns and binom.cdf(violations, turns, allowed) <= SIGNIFICANCE:
        return RunOutcome.PASS, 0
    if turns and binom.sf(violations - 1, turns, allowed) <= SIGNIFICANCE:
        return RunOutcome.FAIL, 0
    return RunOutcome.UNDECIDED, _needed(violations, turns, allowed)


def _needed(violations: int, turns: int, allowed: float) -> int:
    """How many more turns decide it, if they violate at the rate seen so far."""
    rate = violations / turns if turns else 0.0

    def decided(total: int) -> bool:
        seen = round(rate * total)
        return bool(
            binom.cdf(seen, total, allowed) <= SIGNIFICANCE or binom.sf(seen - 1, total, allowed) <= SIGNIFICANCE
        )

    low, high = turns, max(1, turns)
    while not decided(high):
        if high >= MAX_NEEDED:
            return MAX_NEEDED
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high - turns


def count_violations(taken: HdrHistogram | None, limit_ms: float) -> int:
    """How many values are not below a limit (to the histogram's three digits)."""
    if taken is None or not taken.get_total_count():
        return 0
    count = 0
    for item in taken.get_recorded_iterator():
        if item.value_iterated_to >= limit_ms * 1000:
            count += item.count_added_in_this_iter_step
    return int(count)


def quantile_verdict(name: str, source: str, statistic: str, limit_ms: float, *, taken: HdrHistogram | None) -> Verdict:
    """One quantile against one limit."""
    turns = int(taken.get_total_count()) if taken else 0
    violations = count_violations(taken, limit_ms)
    outcome, needed = judge(violations, turns, QUANTILES[statistic])
    observed = None
    if taken and turns:
        observed = round(taken.get_value_at_percentile(QUANTILES[statistic] * 100) / 1000, 1)
    return Verdict(
        name,
        source=source,
        statistic=statistic,
        limit_ms=limit_ms,
        observed_ms=observed,
        violations=violations,
        turns=turns,
        outcome=outcome,
        needed=needed,
    )


def share_verdict(name: str, good: int, total: int, share: float) -> Verdict:
    """At least this share must be good; counted, so there is nothing to estimate. `observed_ms` is the percentage."""
    reached = good / total if total else 0.0
    outcome = RunOutcome.PASS if total and reached >= share else RunOutcome.FAIL
    return Verdict(
        name,
        source="ours",
        statistic="share",
        limit_ms=share * 100,
        observed_ms=round(reached * 100, 3),
        violations=total - good,
        turns=total,
        outcome=outcome,
    )


def gates(tier: Tier, series: Series, counts: Counts) -> tuple[Verdict, ...]:
    """What decides the run: the tier's total, the tail's targets, and that the calls were held."""
    whole = series.get(VOICE_TO_VOICE)
    sessions = counts.sessions_opened + counts.sessions_failed + counts.sessions_refused
    kept = max(0, counts.sessions_opened - counts.sessions_dropped)
    smooth_s = max(0.0, counts.audio_s - counts.underrun_s)
    tail = [row for row in ALERTS if row.metric in (Metric.END_TO_END_P95, Metric.END_TO_END_P99)]
    return (
        quantile_verdict(
            f"{tier.value} tier", source="guide 3.1", statistic="p50", limit_ms=total_limit_ms(tier), taken=whole
        ),
        *(
            quantile_verdict(
                f"end to end {row.statistic}",
                source="guide 7.1",
                statistic=row.statistic,
                limit_ms=row.target_ms,
                taken=whole,
            )
            for row in tail
        ),
        share_verdict("calls set up", counts.sessions_opened, sessions, SETUP_SHARE),
        share_verdict("calls kept", kept, counts.sessions_opened, 1.0),
        share_verdict("turns answered", counts.answered + counts.interrupted, counts.turns, ANSWERED_SHARE),
        share_verdict(
            "audio without underrun", round(smooth_s * 1000), round(counts.audio_s * 1000), 1 - UNDERRUN_SHARE
        ),
    )


def guide_verdicts(series: Series) -> Iterator[Verdict]:
    """Every tier's total, the six components of 3.2 in each tier, and the table of 7.1."""
    whole = series.get(VOICE_TO_VOICE)
    for tier in Tier:
        yield quantile_verdict(
            f"total, {tier.value}", source="guide 3.1", statistic="p50", limit_ms=total_limit_ms(tier), taken=whole
        )
    for component, names in COMPONENT_SERIES.items():
        taken = next((series[name] for name in names if name in series), None)
        for tier in Tier:
            limit_ms = component_limit_ms(component, tier)
            yield quantile_verdict(
                f"{component.value}, {tier.value}", source="guide 3.2", statistic="p50", limit_ms=limit_ms, taken=taken
            )
    for row in ALERTS:
        taken = series.get(METRIC_SERIES[row.metric])
        yield quantile_verdict(
            f"{row.metric.value} target",
            source="guide 7.1",
            statistic=row.statistic,
            limit_ms=row.target_ms,
            taken=taken,
        )


def overall(decisive: tuple[Verdict, ...], causes: tuple[str, ...]) -> RunOutcome:
    """INVALID blames the generator; else one failed gate fails, and one open gate leaves the run undecided."""
    outcomes = {gate.outcome for gate in decisive}
    for outcome, holds in (
        (RunOutcome.INVALID, bool(causes)),
        (RunOutcome.FAIL, RunOutcome.FAIL in outcomes),
        (RunOutcome.UNDECIDED, RunOutcome.UNDECIDED in outcomes),
    ):
        if holds:
            return outcome
    return RunOutcome.PASS
