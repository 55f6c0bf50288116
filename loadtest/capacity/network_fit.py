"""From a calibration to a network that can be simulated at other loads, with other replicas, or with other engines.

Service times are the replicas' own. What grows with their number in service is fitted over the levels (the batching
curve), and used only if it is more than noise: then the lowest level's times are those of a service alone; otherwise
all levels' are one sample. What the host, the wire and the caller's machine add is what the shares of a turn show
beyond the engines' own times. The length of a caller's speech is what remains of a cycle after thinking, waiting and
listening.
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

CALM = 0.1
"""A mean wait of at most this share of the service leaves a stage's times comparable with those at no load."""

NOTICED = 0.05
"""Transcripts a turn beyond one, below which the difference is the edges of the measured time."""

CHARACTERS_A_WORD = 6
"""With its space; English."""

SURE = 3.0
"""Standard errors by which a service must grow with its neighbours before it is believed to."""

_THINK_POINTS = 41


@dataclass(frozen=True, slots=True)
class Batching:
    """Mean service against the mean number in service: `slope_s` a further one, and its standard error."""

    alone_s: float
    slope_s: float
    error_s: float

    @property
    def believed(self) -> bool:
        return self.slope_s > SURE * self.error_s

    def factors(self, slots: int) -> tuple[float, ...]:
        """How many times as long a service takes as one of 1, 2 ... slots."""
        return tuple(1 + self.slope_s * others / self.alone_s for others in range(slots))


def batching(calibration: Calibration, stage: str) -> Batching | None:
    """Weighted least squares over the levels; None if they do not differ in how busy the stage was."""
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
    """The network of the calibrated deployment. `answer`: its replies, if they are known better than measured."""
    least = calibration.least
    missing = [stage for stage in STAGES if stage not in least.stages or not least.stages[stage].served]
    if missing:
        raise ConfigError(
            f"the {', '.join(missing)} replicas counted no service.", "Calibrate with turns that are answered.", "--url"
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
    """Replies as the lowest level shows them: their audio, in as many segments as the voice was asked for.

    The first is as long as its words take to say; the others share the rest and are complete one after another while
    the language model still generates.
    """
    segments = max(1, round(level.stages["tts"].requests / max(1.0, _turns_counted(level))))
    first_s = min(level.audio_s, conversation.first_segment_words * CHARACTERS_A_WORD / CHARACTERS_PER_S)
    first_s = level.audio_s if segments == 1 else first_s
    ready_s = level.parts["first_segment"].mean_s if "first_segment" in level.parts else 0.0
    generation_s = max(ready_s, level.stages["llm"].service_mean_s - level.parts["llm_first_token"].mean_s)
    others = segments - 1
    rest = [
        (ready_s + (generation_s - ready_s) * (number + 1) / others, (level.audio_s - first_s) / others)
        for number in range(others)
    ]
    first_audio_s = max(1e-3, level.parts["tts_first_audio"].mean_s - level.stages["tts"].queue_mean_s)
    behind_s = max(1e-3, level.stages["tts"].service_mean_s - first_audio_s)
    return ReplyModel(((ready_s, first_s), *rest), generation_s, speed=level.audio_s / segments / behind_s)


def _turns_counted(level: Level) -> float:
    """Turns that the replicas served, the warm-up's too: one language model request each, hedges aside."""
    return level.stages["llm"].requests - level.hedged


def _stage(calibration: Calibration, name: str, first: Quantiles, hop_s: float = 0.0) -> QueueStage:
    least = calibration.least.stages[name]
    return QueueStage(least.replicas, calibration.slots[name], _batched(calibration, name, first), fixed(hop_s))


def _served(calibration: Calibration, name: str) -> Quantiles:
    """The services of a stage, those of all comparable levels together."""
    rows = [level.stages[name] for level in _comparable(calibration, name)]
    return pooled([(row.served, Quantiles(row.service)) for row in rows])


def _comparable(calibration: Calibration, name: str) -> list[Level]:
    """The lowest level, and those above it at which the stage hardly queued, unless its services slow each other."""
    found = batching(calibration, name)
    if found is not None and found.believed:
        return [calibration.least]
    levels = [level for level in calibration.levels if level.stages[name].served]
    calm = [level for level in levels if level.stages[name].queue_mean_s <= CALM * level.stages[name].service_mean_s]
    return calm or [calibration.least]


def _streaming(calibration: Calibration, name: str, part: str, behind_s: float) -> QueueStage:
    """A stage whose slot is held `behind_s` beyond its first output, on average.

    The first output's time is the turn's share for it, less the mean wait. What that is longer than the replica's own
    service is the way there and back, in which no slot is held.
    """
    levels = _comparable(calibration, name)
    turns = [level.turns for level in levels]
    first_s = _mean(turns, [level.parts[part].mean_s - level.stages[name].queue_mean_s for level in levels])
    stages = [level.stages[name] for level in levels]
    service_s = _mean([stage.served for stage in stages], [stage.service_mean_s for stage in stages])
    hop_s = min(max(0.0, first_s - (service_s - behind_s)), first_s)
    shape = pooled([(level.turns, level.parts[part].times) for level in levels])
    return _stage(calibration, name, shape.shifted(first_s - hop_s - shape.mean_s), hop_s)


def _mean(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def pooled(samples: Sequence[tuple[float, Quantiles]]) -> Quantiles:
    """One distribution from several of the same thing: the weighted mean of their quantiles (Vincent's average)."""
    shares = sorted({share for _, times in samples for share, _ in times.points})
    weights = [weight for weight, _ in samples]
    return Quantiles(tuple((share, _mean(weights, [times.at(share) for _, times in samples])) for share in shares))


def _batched(calibration: Calibration, name: str, times: Quantiles) -> ServiceTimes:
    found = batching(calibration, name)
    if found is None or not found.believed:
        return times
    return Batched(times, found.factors(calibration.slots[name]))


def _part(level: Level, name: str) -> ServiceTimes:
    return level.parts[name].times if name in level.parts else fixed(0.0)


def _callers(calibration: Calibration) -> CallerModel:
    """Speech is what remains of the cycle, at any load, so all levels tell it together; transcripts beyond one a turn
    were asked for at pauses.
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
        abandoned=abandoned if abandoned > NOTICED else 0.0,
    )


def log_normal(median_s: float, sigma: float) -> ServiceTimes:
    """As a table of quantiles, whose mean is the distribution's."""
    normal = NormalDist()
    shares = [index / (_THINK_POINTS - 1) for index in range(_THINK_POINTS)]
    clipped = [min(max(share, 0.002), 0.998) for share in shares]
    values = [median_s * math.exp(sigma * normal.inv_cdf(share)) for share in clipped]
    table = Quantiles(tuple(zip(shares, values, strict=True)))
    wanted_s = median_s * math.exp(sigma**2 / 2)
    scale = wanted_s / table.mean_s if table.mean_s else 1.0
    return Quantiles(tuple((share, seconds * scale) for share, seconds in table.points))


def _hedges(calibration: Calibration) -> bool:
    return calibration.least.stages["llm"].replicas > 1


def _transcript_hop_s(network: TurnNetwork, level: Level) -> float:
    """What the way to speech to text and back adds, as far as it shows beside the endpoint's wait."""
    shown_s = sum(level.parts[name].mean_s for name in ("endpoint", "stt") if name in level.parts)
    runs = [simulate(network, level.sessions, FOR_S, seed) for seed in SEEDS]
    simulated_s = fmean(turn.heard_s for run in runs for turn in run.turns)
    # The network's services are those of several levels: this level's own mean counts here.
    luck_s = level.stages["stt"].service_mean_s - network.stt.first.mean_s
    return max(0.0, shown_s - simulated_s - luck_s)


def varied(network: TurnNetwork, stages: dict[str, QueueStage]) -> TurnNetwork:
    """The same conversations on other stages; what the way to a stage adds stays as it was calibrated."""
    changed = {name: replace(stage, hop_s=getattr(network, name).hop_s) for name, stage in stages.items()}
    return network.with_stages(changed)


def span(levels: Sequence[Level]) -> tuple[int, int]:
    """The calibrated range of sessions."""
    return min(level.sessions for level in levels), max(level.sessions for level in levels)
