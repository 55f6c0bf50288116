"""False cut-offs against latency of endpointing rules: `python -m benchmarks.studies.turn_curves FILE`.

`python -m benchmarks.studies.turn_study --json FILE` writes FILE, the silences of human speech. A silence inside a
sentence is a pause, and a silence after the utterance is an end. A silence between two sentences is neither, and only
updates the statistics of the caller's pauses. Each rule has one setting, which trades cut-offs against delay:

    fixed      End the turn after a fixed silence.
    stock      Query the turn model at 200 ms of silence (pipecat's default). End the turn at once if its probability is
               above the setting, else after 3 s.
    fused      The product's rule (`rejoinder/core/turns/endpointing.py`): turn model, words and the caller's pauses,
               with a budget of false cut-offs.

The delay is the mean silence after which the turn ends in an end. The cut-off rate is the share of pauses in which the
rule ends the turn. The weights of the fused rule are fitted on four fifths of the clips and tested on the remaining
fifth, five times.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.studies.turn_study import Silence
from rejoinder.core.settings.settings import EndpointingSettings, Settings
from rejoinder.core.turns.end_of_turn import WEIGHTS, FusionWeights, end_of_turn_probability, regression_inputs
from rejoinder.core.turns.endpointing import PauseStats, TurnDetection, endpoint_silence_s
from rejoinder.core.turns.transcript_ending import TranscriptEnding, classify_ending

Floats = npt.NDArray[np.float64]
Rule = Callable[[Silence, PauseStats, float], float]
"""Function that returns the silence in ms after which a rule ends the turn. It gets the silence to judge, the
statistics of the caller's pauses and the rule's setting.
"""

STOCK_QUERY_MS = 200.0
STOCK_FALLBACK_MS = 3000.0
FOLDS = 5
# Prior of the weights (use the turn model's probability as it is) and its precision. The model's authors tested it on
# conversation, but this speech is read. Without the prior the fit would halve the weight of a confident "not finished".
PRIOR = FusionWeights(bias=0.0, turn_model=1.0, finished=0.0, open=0.0)
PRECISION = FusionWeights(bias=0.0, turn_model=100.0, finished=5.0, open=5.0)
STEPS = 30
# Points at which the table compares rules, taken from a published benchmark of turn detectors: the cut-off rate at
# these mean delays, and the mean delay at these cut-off rates (shares of pauses).
AT_DELAY_MS = (300.0, 600.0)
AT_CUT_OFFS = (0.05, 0.10)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Result of one setting of a rule: mean silence in ms before a turn ends, and share of pauses that are cut off."""

    setting: float
    delay_ms: float
    cut: float


def fit(silences: Sequence[Silence]) -> FusionWeights:
    """Return the weights with which the turn model and the words predict best whether a silence is an end.

    They are fitted by logistic regression, regularized towards PRIOR, on the ends and pauses among `silences`.
    """
    labelled = [silence for silence in silences if silence.resumed_ms is None or is_pause(silence)]
    inputs = np.array([regression_inputs(silence.later, _words(silence)) for silence in labelled])
    ended = np.array([silence.resumed_ms is None for silence in labelled], np.float64)
    prior, penalty = np.array(astuple(PRIOR)), np.diag(astuple(PRECISION))
    weights = prior
    for _ in range(STEPS):
        predicted = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (predicted - ended) + penalty @ (weights - prior)
        hessian = (inputs * (predicted * (1 - predicted))[:, None]).T @ inputs + penalty
        weights = weights - np.linalg.solve(hessian, gradient)
    return FusionWeights(*(round(float(weight), 2) for weight in weights))


def is_pause(silence: Silence) -> bool:
    """Return True if speech resumed after the silence within the same sentence."""
    return silence.resumed_ms is not None and not silence.sentence_over


def fixed(silence: Silence, pauses: PauseStats, setting: float) -> float:
    """Return `setting`, the silence in ms after which the turn always ends. `silence` and `pauses` have no effect."""
    return setting


def stock(silence: Silence, pauses: PauseStats, setting: float) -> float:
    """Return the silence in ms after which the turn ends.

    It is the time of the turn model's verdict if the verdict's probability is above `setting`, else 3 s. The statistics
    of the caller's pauses, `pauses`, have no effect.
    """
    if silence.later > setting:
        return max(STOCK_QUERY_MS, silence.soft_ms) + silence.judged_ms
    return STOCK_FALLBACK_MS


def fused(weights: FusionWeights, settings: Settings) -> Rule:
    """Return the product's rule with these weights. The rule's setting is the budget of false cut-offs.

    If the transcript looks complete, its words alone decide. Otherwise the turn model's probability is combined with
    the words.
    """

    def rule(silence: Silence, pauses: PauseStats, setting: float) -> float:
        endpointing = settings.endpointing.model_copy(update={"cut_off_budget": setting})
        transcript_ms = silence.soft_ms + silence.transcribed_ms
        words = _words(silence)
        if words is TranscriptEnding.FINISHED and endpointing.finished_probability:
            return max(transcript_ms, _wait_ms(endpointing, endpointing.finished_probability, pauses))
        query_ms = max(silence.soft_ms, min(endpointing.ask_after_ms, transcript_ms))
        probability = end_of_turn_probability(silence.later, words, weights)
        return max(query_ms + silence.judged_ms, _wait_ms(endpointing, probability, pauses))

    return rule


def _wait_ms(settings: EndpointingSettings, probability: float | None, pauses: PauseStats) -> float:
    return endpoint_silence_s(TurnDetection(), settings, probability, pauses) * 1000


def _words(silence: Silence) -> TranscriptEnding:
    return classify_ending(silence.text)


def point(rule: Rule, setting: float, silences: Sequence[Silence]) -> CurvePoint:
    """Return the result of one setting over all silences.

    The statistics of a caller's pauses are reset at each clip.
    """
    delays, pauses, cut = [], 0, 0
    clip, pause_stats = "", PauseStats()
    for silence in silences:
        if silence.clip != clip:
            clip, pause_stats = silence.clip, PauseStats()
        taken_ms = rule(silence, pause_stats, setting)
        if silence.resumed_ms is None:
            delays.append(taken_ms)
            continue
        pause_stats = pause_stats.with_pause(silence.resumed_ms / 1000)
        if not silence.sentence_over:
            pauses += 1
            cut += silence.resumed_ms > taken_ms
    return CurvePoint(setting, float(np.mean(delays)), cut / max(1, pauses))


def cross_validated(
    rule_of: Callable[[FusionWeights], Rule], setting: float, silences: Sequence[Silence]
) -> CurvePoint:
    """Return the result of one setting of a fused rule over all silences.

    The weights for a clip are fitted on other clips.

    Args:
        rule_of: Function that returns the rule with given weights.
        setting: Budget of false cut-offs, 0 to 1.
        silences: The silences of all clips.
    """
    names = sorted({silence.clip for silence in silences})
    points = []
    for fold in range(FOLDS):
        held_out = set(names[fold::FOLDS])
        tested = [silence for silence in silences if silence.clip in held_out]
        rule = rule_of(fit([silence for silence in silences if silence.clip not in held_out]))
        points.append((point(rule, setting, tested), tested))
    ends = [sum(s.resumed_ms is None for s in tested) for _, tested in points]
    pauses = [sum(is_pause(silence) for silence in tested) for _, tested in points]
    delay_ms = float(np.average([found.delay_ms for found, _ in points], weights=ends))
    return CurvePoint(setting, delay_ms, float(np.average([found.cut for found, _ in points], weights=pauses)))


def cut_at(points: Sequence[CurvePoint], delay_ms: float) -> float | None:
    """Return the lowest cut-off rate with a mean delay of at most `delay_ms`, or None if every setting is slower."""
    return min((found.cut for found in points if found.delay_ms <= delay_ms), default=None)


def delay_at(points: Sequence[CurvePoint], cut: float) -> float | None:
    """Return the lowest mean delay in ms with a cut-off rate of at most `cut` (0..1).

    None if every setting cuts off more pauses.
    """
    return min((found.delay_ms for found in points if found.cut <= cut), default=None)


def _formatted(value: float | None, scale: float, unit: str) -> str:
    return "never" if value is None else f"{value * scale:.1f}{unit}" if unit == "%" else f"{value:.0f}{unit}"


def line(name: str, points: Sequence[CurvePoint]) -> str:
    """Return one rule's line of the table: cut-off rates in % at AT_DELAY_MS, then delays in ms at AT_CUT_OFFS."""
    cuts = [_formatted(cut_at(points, delay_ms), 100, "%") for delay_ms in AT_DELAY_MS]
    delays = [_formatted(delay_at(points, cut), 1, " ms") for cut in AT_CUT_OFFS]
    return f"| {name} | " + " | ".join([*cuts, *delays]) + " |"


def main() -> None:
    """Print the weights fitted on all clips, the table of the rules, and the results of the default settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="output of turn_study --json")
    options = parser.parse_args()
    silences = [Silence(**entry) for entry in json.loads(options.file.read_text(encoding="utf-8"))["silences"]]
    settings = Settings()
    pauses = [silence.resumed_ms / 1000 for silence in silences if silence.resumed_ms and is_pause(silence)]
    finished = [silence for silence in silences if _words(silence) is TranscriptEnding.FINISHED]
    ends = sum(silence.resumed_ms is None for silence in finished)
    print(f"{len(silences)} silences, {len(pauses)} of them pauses, mean {np.mean(pauses):.2f} s")
    print(f"reads finished: {len(finished)}, of which {ends} are ends")
    print(f"turn model, one decision: p99 {np.percentile([s.judged_ms for s in silences], 99):.0f} ms (the guide: 75)")
    print(f"weights fitted on all clips: {fit(silences)}")
    print("| rule | cut-offs at 300 ms | at 600 ms | delay at 5% cut-offs | at 10% |\n|---|---|---|---|---|")
    waits = [float(wait) for wait in range(40, 3000, 20)]
    budgets = [float(budget) for budget in np.geomspace(0.001, 0.9, 80)]
    print(line("fixed silence", [point(fixed, wait, silences) for wait in waits]))
    print(line("turn model, stock rule", [point(stock, limit, silences) for limit in np.linspace(0.0, 1.0, 201)]))
    print(line("fused", [cross_validated(lambda w: fused(w, settings), budget, silences) for budget in budgets]))
    for name, rule, setting in (
        ("fixed 500 ms", fixed, 500.0),
        ("stock rule at 0.5", stock, 0.5),
        ("fused, as configured", fused(WEIGHTS, settings), settings.endpointing.cut_off_budget),
    ):
        found = point(rule, setting, silences)
        print(f"{name}: mean delay {found.delay_ms:.0f} ms, {found.cut:.1%} of pauses cut")


if __name__ == "__main__":
    main()
