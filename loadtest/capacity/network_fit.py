"""Fit a network of queues to a calibration, for simulation at other loads, with other replicas or other engines.

- Service times are those that the replicas measured.
- The growth of a stage's service time with the number of requests in service is fitted over the calibration runs (the
  batching line). If the growth is significant, the times in the run with the fewest sessions count as times of a
  request that is served alone. Otherwise the times of all runs with short waits are pooled.
- The time of the host, the network and the caller's machine is the length of a turn minus the engines' own times.
- The length of a caller's speech is what remains of a conversation's cycle after thinking, waiting and listening.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

from loadtest.capacity.calibration import Calibration, Level
from loadtest.capacity.prediction import FOR_S, SEEDS
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import Batched, Quantiles, ServiceTimes, fixed
from loadtest.capacity.turn_network import CallerModel, ReplyModel, TurnNetwork, simulate
from loadtest.results.result import VOICE_TO_VOICE
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.service_curves import EmulatedStage
from rejoinder.core.reply.playout import CHARACTERS_PER_S
from rejoinder.core.settings.settings import ConversationSettings, HedgingSettings, parse_settings

STAGES: tuple[EmulatedStage, ...] = ("stt", "llm", "tts")

LOW_WAIT = 0.1
"""Largest mean wait, as a share of the service time, at which a level's times count as times without load."""

LEAST_ABANDONED = 0.05
"""Minimum number of extra transcripts per turn that is used. Fewer can be due to turns that began before the measured
time or ended after it."""

CHARACTERS_PER_WORD = 6
"""Length in characters of an average English word, with its space."""

SIGNIFICANT = 3.0
"""Number of standard errors by which the service time must grow with load before the growth is used."""

_THINK_POINTS = 41


@dataclass(frozen=True, slots=True)
class Batching:
    """Straight line of a stage's mean service time over its mean number of requests in service per replica.

    Attributes:
        alone_s: Service time of a request that is served alone, in seconds.
        slope_s: Additional service time for each further request in service, in seconds.
        error_s: Standard error of `slope_s`.
    """

    alone_s: float
    slope_s: float
    error_s: float

    @property
    def believed(self) -> bool:
        """True if the service time grows significantly with load. Only then the model uses the growth."""
        return self.slope_s > SIGNIFICANT * self.error_s

    def factors(self, slots: int) -> tuple[float, ...]:
        """Return the factors by which service is slower while 1, 2, ... `slots` requests are served at the same time.

        The first factor is 1.
        """
        return tuple(1 + self.slope_s * others / self.alone_s for others in range(slots))


def batching(calibration: Calibration, stage: str) -> Batching | None:
    """Fit the line of a stage's mean service time over its number of requests in service, by weighted least squares.

    Each calibration run is one point. Return None if the number of requests in service differs too little between the
    runs.
    """
    rows = [level.stages[stage] for level in calibration.levels if level.stages[stage].served]
    busy = [max(1.0, row.in_service) for row in rows]
    if len(rows) < 2 or max(busy) - min(busy) < 0.25:
        return None
    weights = [row.served / max(1e-9, Quantiles(row.service).scv * row.service_mean_s**2) for row in rows]
    total = sum(weights)
    centre = sum(w * x for w, x in zip(weights, busy, strict=True)) / total
    mean = sum(w * row.service_mean_s for w, row in zip(weights, rows, strict=True)) / total
    spread = sum(w * (x - centre) ** 2 for w, x in zip(weights, busy, strict=True))
    slope = (
        sum(w * (x - centre) * (row.service_mean_s - mean) for w, x, row in zip(weights, busy, rows, strict=True))
        / spread
    )
    return Batching(max(1e-6, mean - slope * (centre - 1)), slope, math.sqrt(1 / spread))


def fit(calibration: Calibration, answer: ReplyModel | None = None) -> TurnNetwork:
    """Return a network of queues that models the calibrated deployment.

    Args:
        calibration: Calibration runs and settings of the deployment.
        answer: Model of the replies. If it is None, the model is derived from the run with the fewest sessions.

    Raises:
        ConfigError: A stage served no request in the run with the fewest sessions.
    """
    least = calibration.least
    missing = [stage for stage in STAGES if stage not in least.stages or not least.stages[stage].served]
    if missing:
        raise ConfigError(
            f"the {', '.join(missing)} replicas served no request.", "Calibrate with turns that are answered.", "--url"
        )
    settings = parse_settings(calibration.settings)
    answer = answer or measured_answer(least, settings.conversation)
    bare = TurnNetwork(
        stt=_stage(calibration, "stt", _served(calibration, "stt")),
        llm=_streaming(calibration, "llm", "llm_first_token", answer.generation_s),
        tts=_streaming(calibration, "tts", "tts_first_audio", fmean(answer.rest_s(s) for _, s in answer.segments)),
        callers=_callers(calibration),
        answer=answer,
        silence=_part(least, "silence"),
        endpoint=_part(least, "endpoint"),
        delivery=_part(least, "delivery"),
        hedging=settings.hedging if _hedges(calibration) else HedgingSettings(enabled=False),
    )
    return replace(bare, stt=replace(bare.stt, hop_s=fixed(_transcript_hop_s(bare, least))))


def measured_answer(level: Level, conversation: ConversationSettings) -> ReplyModel:
    """Return a model of the replies in a calibration run.

    A reply has as many segments as the voice received requests per turn. The length of the first segment follows from
    its number of words. The other segments share the rest of the audio, and are complete at even intervals while the
    language model generates.

    Args:
        level: Measurements of the run.
        conversation: Settings of the deployment, which give the number of words of the first segment.
    """
    segments = max(1, round(level.stages["tts"].requests / max(1.0, _turns_counted(level))))
    first_s = min(level.audio_s, conversation.first_segment_words * CHARACTERS_PER_WORD / CHARACTERS_PER_S)
    first_s = level.audio_s if segments == 1 else first_s
    ready_s = level.parts["first_segment"].mean_s if "first_segment" in level.parts else 0.0
    generation_s = max(ready_s, level.stages["llm"].service_mean_s - level.parts["llm_first_token"].mean_s)
    others = segments - 1
    rest = [
        (ready_s + (generation_s - ready_s) * (number + 1) / others, (level.audio_s - first_s) / others)
        for number in range(others)
    ]
    first_audio_s = max(1e-3, level.parts["tts_first_audio"].mean_s - level.stages["tts"].queue_mean_s)
    rest_s = max(1e-3, level.stages["tts"].service_mean_s - first_audio_s)
    return ReplyModel(((ready_s, first_s), *rest), generation_s, speed=level.audio_s / segments / rest_s)


def _turns_counted(level: Level) -> float:
    """Return the number of turns in a run, warm-up included: the requests to the LLM without hedges."""
    return level.stages["llm"].requests - level.hedged


def _stage(calibration: Calibration, name: str, first: Quantiles, hop_s: float = 0.0) -> QueueStage:
    least = calibration.least.stages[name]
    return QueueStage(least.replicas, calibration.slots[name], _batched(calibration, name, first), fixed(hop_s))


def _served(calibration: Calibration, name: str) -> Quantiles:
    """Return the measured service times of a stage without load.

    They are pooled over the calibration runs in which the stage had short waits.
    """
    rows = [level.stages[name] for level in _comparable(calibration, name)]
    return pooled([(row.served, Quantiles(row.service)) for row in rows])


def _comparable(calibration: Calibration, name: str) -> list[Level]:
    """Return the calibration runs whose service times at a stage count as times without load.

    These are the runs with short waits at the stage. If concurrent requests slow each other down, or if all waits are
    long, only the run with the fewest sessions counts.
    """
    line = batching(calibration, name)
    if line is not None and line.believed:
        return [calibration.least]
    levels = [level for level in calibration.levels if level.stages[name].served]
    low = [level for level in levels if level.stages[name].queue_mean_s <= LOW_WAIT * level.stages[name].service_mean_s]
    return low or [calibration.least]


def _streaming(calibration: Calibration, name: str, part: str, rest_s: float) -> QueueStage:
    """Return the model of a stage that streams its output, the language model or the voice.

    The time to the first output is the turn's measured `part` minus the mean wait for a slot. The replica's own share
    of it is the measured service time minus `rest_s`. The difference of both is the network hop to the replica and
    back, which occupies no slot.

    Args:
        calibration: Measurements of the calibration runs.
        name: Name of the stage.
        part: Name of the turn's part that ends with the first output.
        rest_s: Mean seconds for which a request occupies its slot after the first output.
    """
    levels = _comparable(calibration, name)
    turns = [level.turns for level in levels]
    first_s = _mean(turns, [level.parts[part].mean_s - level.stages[name].queue_mean_s for level in levels])
    stages = [level.stages[name] for level in levels]
    service_s = _mean([stage.served for stage in stages], [stage.service_mean_s for stage in stages])
    hop_s = min(max(0.0, first_s - (service_s - rest_s)), first_s)
    shape = pooled([(level.turns, level.parts[part].times) for level in levels])
    return _stage(calibration, name, shape.shifted(first_s - hop_s - shape.mean_s), hop_s)


def _mean(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def pooled(samples: Sequence[tuple[float, Quantiles]]) -> Quantiles:
    """Combine distributions of the same quantity into one, by the weighted mean of their quantiles (Vincent averaging).

    `samples` are (weight, distribution) pairs.
    """
    shares = sorted({share for _, times in samples for share, _ in times.points})
    weights = [weight for weight, _ in samples]
    return Quantiles(tuple((share, _mean(weights, [times.at(share) for _, times in samples])) for share in shares))


def _batched(calibration: Calibration, name: str, times: Quantiles) -> ServiceTimes:
    line = batching(calibration, name)
    if line is None or not line.believed:
        return times
    return Batched(times, line.factors(calibration.slots[name]))


def _part(level: Level, name: str) -> ServiceTimes:
    return level.parts[name].times if name in level.parts else fixed(0.0)


def _callers(calibration: Calibration) -> CallerModel:
    """Return the behaviour of the callers for the simulation, from all calibration runs together.

    The length of speech is what remains of a conversation's cycle after thinking, waiting and listening. It is the same
    at every load. If there is more than one transcript per turn, the others count as transcripts that were
    requested at pauses and cancelled.
    """
    levels, behavior = calibration.levels, calibration.behavior
    turns = [level.turns for level in levels]
    cycle_s = sum(level.sessions * level.for_s for level in levels) / sum(turns)
    listening_s = _mean(turns, [level.parts[VOICE_TO_VOICE].mean_s + level.audio_s for level in levels])
    think_s = behavior.think_s * math.exp(behavior.think_sigma**2 / 2)
    abandoned = sum(level.stages["stt"].requests for level in levels) / max(1.0, sum(map(_turns_counted, levels))) - 1
    return CallerModel(
        think=log_normal(behavior.think_s, behavior.think_sigma),
        speech=fixed(max(0.0, cycle_s - think_s - listening_s)),
        abandoned=abandoned if abandoned > LEAST_ABANDONED else 0.0,
    )


def log_normal(median_s: float, sigma: float) -> ServiceTimes:
    """Return a log-normal distribution of seconds as quantiles, scaled so that its mean is exact.

    Args:
        median_s: Median in seconds.
        sigma: Standard deviation of the logarithm.
    """
    normal = NormalDist()
    shares = [index / (_THINK_POINTS - 1) for index in range(_THINK_POINTS)]
    clipped = [min(max(share, 0.002), 0.998) for share in shares]
    values = [median_s * math.exp(sigma * normal.inv_cdf(share)) for share in clipped]
    table = Quantiles(tuple(zip(shares, values, strict=True)))
    mean_s = median_s * math.exp(sigma**2 / 2)
    scale = mean_s / table.mean_s if table.mean_s else 1.0
    return Quantiles(tuple((share, seconds * scale) for share, seconds in table.points))


def _hedges(calibration: Calibration) -> bool:
    return calibration.least.stages["llm"].replicas > 1


def _transcript_hop_s(network: TurnNetwork, level: Level) -> float:
    """Return the seconds by which the network hop to speech to text and back makes a turn longer.

    This is the measured time from the tentative end of speech to the transcript, minus the same time in a simulation
    without the hop. The part of the hop that endpointing hides does not count.
    """
    measured_s = sum(level.parts[name].mean_s for name in ("endpoint", "stt") if name in level.parts)
    runs = [simulate(network, level.sessions, FOR_S, seed) for seed in SEEDS]
    simulated_s = fmean(turn.transcript_s for run in runs for turn in run.turns)
    # The simulation uses service times pooled over several calibration runs. Subtract the difference between the mean
    # service time in this run and the pooled mean.
    difference_s = level.stages["stt"].service_mean_s - network.stt.first.mean_s
    return max(0.0, measured_s - simulated_s - difference_s)


def with_calibrated_hops(network: TurnNetwork, stages: dict[str, QueueStage]) -> TurnNetwork:
    """Return the network with its stages replaced by `stages`, which are given by name.

    A replaced stage keeps the calibrated time of the network hop to its replicas.
    """
    changed = {name: replace(stage, hop_s=getattr(network, name).hop_s) for name, stage in stages.items()}
    return network.with_stages(changed)


def session_range(levels: Sequence[Level]) -> tuple[int, int]:
    """Return (lowest, highest) number of sessions of the calibration runs."""
    return min(level.sessions for level in levels), max(level.sessions for level in levels)
