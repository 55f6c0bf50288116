"""Compare measurements with limits, at 95% confidence.

"p95 is below 1,200 ms" means that at most 5% of all turns reach 1,200 ms. Suppose that k of n measured turns reach
1,200 ms. Let X be binomial with n trials and probability 5%.

- PASS if P(X <= k) is at most 5%: k would be unlikely to be this small if 5% or more of all turns reached the limit.
- FAIL if P(X >= k) is at most 5%: k would be unlikely to be this large if 5% or less of all turns reached the limit.
- UNDECIDED otherwise. The verdict then states how many more turns decide it if the rate of violations stays the same.

A p99 passes with 299 turns without a violation, or with 473 turns with one violation.

Shares, such as the share of calls that were set up, are compared with their limits directly. They are counted over the
whole run, so they are not samples.
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
"""Maximum probability of a wrong PASS or FAIL: 1 minus the confidence."""

MAX_NEEDED = 1_000_000
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}

# Rejoinder's own limits, as shares: calls set up, turns answered, turns in which the caller could finish, and audio
# time lost to underruns. Also replies that stop when their caller talks over them, replies that go on if nobody does
# (both as in `rejoinder bench turn-taking`), and responses without an error. The latency guide has no such limits, but
# a fast system that refuses calls, drops turns, answers half sentences or does not listen must fail.
SETUP_SHARE = 0.995
ANSWERED_SHARE = 0.99
FINISHED_SHARE = 0.95
UNDERRUN_SHARE = 0.005
YIELD_SHARE = 0.95
UNDISTURBED_SHARE = 0.95
SOUND_SHARE = 0.99

COMPONENT_SERIES: Mapping[Component, tuple[str, ...]] = {
    Component.NETWORK: ("rtt",),
    Component.VAD: (EOU,),
    Component.STT: (RAW + Stage.STT.value,),
    Component.LLM: (RAW + Stage.LLM_FIRST_TOKEN.value,),
    Component.TTS: (RAW + Stage.TTS_FIRST_AUDIO.value,),
    Component.AUDIO: (AUDIO,),
}
"""Names of the measured series of latencies, by component of the latency guide. EOU and AUDIO are defined in
`loadtest.callers.turn_outcomes`."""

METRIC_SERIES: Mapping[Metric, str] = {
    Metric.END_TO_END: VOICE_TO_VOICE,
    Metric.STT: RAW + Stage.STT.value,
    Metric.LLM_TTFT: RAW + Stage.LLM_FIRST_TOKEN.value,
    Metric.TTS_TTFB: RAW + Stage.TTS_FIRST_AUDIO.value,
    Metric.NETWORK_RTT: "rtt",
    Metric.END_TO_END_P95: VOICE_TO_VOICE,
    Metric.END_TO_END_P99: VOICE_TO_VOICE,
}
"""Name of the measured series of latencies, by metric in section 7.1 of the latency guide."""

Series = Mapping[str, HdrHistogram]


def judge(violations: int, turns: int, quantile: float) -> tuple[RunOutcome, int]:
    """Decide at 95% confidence whether a quantile of the latency lies below a limit.

    Args:
        violations: Number of turns at or above the limit.
        turns: Number of turns measured.
        quantile: 0 to 1, for example 0.95.

    Returns:
        (outcome, number of additional turns that would decide it). The number is 0 unless the outcome is UNDECIDED.
    """
    allowed = 1 - quantile
    if turns and binom.cdf(violations, turns, allowed) <= SIGNIFICANCE:
        return RunOutcome.PASS, 0
    if turns and binom.sf(violations - 1, turns, allowed) <= SIGNIFICANCE:
        return RunOutcome.FAIL, 0
    return RunOutcome.UNDECIDED, _needed(violations, turns, allowed)


def _needed(violations: int, turns: int, allowed: float) -> int:
    """Return how many more turns would decide the verdict if the rate of violations stays the same.

    The number is found by doubling and bisection, and is at most about `MAX_NEEDED`. `allowed` is the share of turns
    that may violate the limit.
    """
    rate = violations / turns if turns else 0.0

    def decided(total: int) -> bool:
        expected = round(rate * total)
        return bool(
            binom.cdf(expected, total, allowed) <= SIGNIFICANCE
            or binom.sf(expected - 1, total, allowed) <= SIGNIFICANCE
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


def count_violations(histogram: HdrHistogram | None, limit_ms: float) -> int:
    """Return how many values are at or above `limit_ms` milliseconds. 0 without a histogram.

    The count is exact to the three significant digits of the histogram.
    """
    if histogram is None or not histogram.get_total_count():
        return 0
    count = 0
    for item in histogram.get_recorded_iterator():
        if item.value_iterated_to >= limit_ms * 1000:
            count += item.count_added_in_this_iter_step
    return int(count)


def quantile_verdict(
    name: str, source: str, statistic: str, limit_ms: float, *, histogram: HdrHistogram | None
) -> Verdict:
    """Return the verdict on one percentile.

    Args:
        name: Name of the limited quantity.
        source: Source of the limit, such as a section of the latency guide.
        statistic: p50, p95 or p99.
        limit_ms: Limit in milliseconds that the percentile must be below.
        histogram: The measured values in microseconds, or None if nothing was measured.
    """
    turns = int(histogram.get_total_count()) if histogram else 0
    violations = count_violations(histogram, limit_ms)
    outcome, needed = judge(violations, turns, QUANTILES[statistic])
    observed = None
    if histogram and turns:
        observed = round(histogram.get_value_at_percentile(QUANTILES[statistic] * 100) / 1000, 1)
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
    """Return the verdict on a share that was counted over the whole run.

    Args:
        name: Name of the share that has the limit.
        good: Number of successes among the counted items.
        total: Number of counted items, such as calls or turns. If it is 0, the verdict is FAIL.
        share: Smallest share of successes that passes, 0 to 1.
    """
    reached = good / total if total else 0.0
    outcome = RunOutcome.PASS if total and reached >= share else RunOutcome.FAIL
    return Verdict(
        name,
        source="Rejoinder",
        statistic="share",
        limit_ms=share * 100,
        observed_ms=round(reached * 100, 3),
        violations=total - good,
        turns=total,
        outcome=outcome,
    )


def gates(tier: Tier, series: Series, counts: Counts) -> tuple[Verdict, ...]:
    """Return the verdicts that decide the outcome of the run.

    They are on the tier's median latency, the p95 and p99 targets, and on shares: calls set up, calls not dropped,
    turns answered, turns in which the caller could finish, audio without underruns, replies that nothing but their
    caller stopped, responses without an error, and, if callers interrupted, interruptions that stopped the reply.

    Args:
        tier: The latency tier that the run must meet.
        series: Histograms of the measured latencies in microseconds, by name.
        counts: Calls and turns by outcome.
    """
    whole = series.get(VOICE_TO_VOICE)
    sessions = counts.sessions_opened + counts.sessions_failed + counts.sessions_refused
    kept = max(0, counts.sessions_opened - counts.sessions_dropped)
    smooth_s = max(0.0, counts.audio_s - counts.underrun_s)
    tail = [row for row in ALERTS if row.metric in (Metric.END_TO_END_P95, Metric.END_TO_END_P99)]
    return (
        quantile_verdict(
            f"{tier.value} tier", source="guide 3.1", statistic="p50", limit_ms=total_limit_ms(tier), histogram=whole
        ),
        *(
            quantile_verdict(
                f"end to end {row.statistic}",
                source="guide 7.1",
                statistic=row.statistic,
                limit_ms=row.target_ms,
                histogram=whole,
            )
            for row in tail
        ),
        share_verdict("calls set up", counts.sessions_opened, sessions, SETUP_SHARE),
        share_verdict("calls not dropped", kept, counts.sessions_opened, 1.0),
        share_verdict("turns answered", counts.answered + counts.interrupted, counts.turns, ANSWERED_SHARE),
        share_verdict("turns not cut off", counts.turns - counts.cut_off, counts.turns, FINISHED_SHARE),
        share_verdict(
            "audio without underruns", round(smooth_s * 1000), round(counts.audio_s * 1000), 1 - UNDERRUN_SHARE
        ),
        *_conversation(counts),
    )


def _conversation(counts: Counts) -> Iterator[Verdict]:
    """Yield the verdicts on how the system converses. What did not happen in the run is not judged."""
    heard = counts.answered + counts.interrupted
    judged = (
        ("replies not falsely interrupted", min(counts.false_interruptions, heard), heard, UNDISTURBED_SHARE),
        ("interruptions that stop the reply", counts.late_yields, counts.interruptions, YIELD_SHARE),
        ("responses without an error", counts.responses_failed, counts.responses, SOUND_SHARE),
    )
    for name, bad, total, share in judged:
        if total:
            yield share_verdict(name, total - bad, total, share)


def guide_verdicts(series: Series) -> Iterator[Verdict]:
    """Yield a verdict for every limit in the latency guide's tables.

    `series` has the histograms of the measured latencies in microseconds, by name.

    Yields:
        First the total of each tier (section 3.1), then the six components in each tier (3.2), then the targets of the
        metrics (7.1).
    """
    whole = series.get(VOICE_TO_VOICE)
    for tier in Tier:
        yield quantile_verdict(
            f"total, {tier.value}", source="guide 3.1", statistic="p50", limit_ms=total_limit_ms(tier), histogram=whole
        )
    for component, names in COMPONENT_SERIES.items():
        histogram = next((series[name] for name in names if name in series), None)
        for tier in Tier:
            limit_ms = component_limit_ms(component, tier)
            yield quantile_verdict(
                f"{component.value}, {tier.value}",
                source="guide 3.2",
                statistic="p50",
                limit_ms=limit_ms,
                histogram=histogram,
            )
    for row in ALERTS:
        histogram = series.get(METRIC_SERIES[row.metric])
        yield quantile_verdict(
            f"{row.metric.value} target",
            source="guide 7.1",
            statistic=row.statistic,
            limit_ms=row.target_ms,
            histogram=histogram,
        )


def overall(decisive: tuple[Verdict, ...], causes: tuple[str, ...]) -> RunOutcome:
    """Return the outcome of a run.

    The outcome is the first that applies: INVALID if a self-check of the generator failed, FAIL if any verdict in
    `decisive` is FAIL, UNDECIDED if any is UNDECIDED, PASS.

    Args:
        decisive: Verdicts from `gates`.
        causes: Failed self-checks of the generator, in words.
    """
    outcomes = {gate.outcome for gate in decisive}
    for outcome, holds in (
        (RunOutcome.INVALID, bool(causes)),
        (RunOutcome.FAIL, RunOutcome.FAIL in outcomes),
        (RunOutcome.UNDECIDED, RunOutcome.UNDECIDED in outcomes),
    ):
        if holds:
            return outcome
    return RunOutcome.PASS
