"""False cut-offs against latency, for every rule that takes turns: `python -m benchmarks.studies.turn_curves FILE`.

FILE is what `python -m benchmarks.studies.turn_study --json FILE` heard: the silences of human speech, those inside a
sentence (pauses) and those behind an utterance (ends); one between two sentences is neither, and only teaches the
caller's habit. Each rule has one setting that trades the two errors:

    fixed      the turn is taken after so much silence, whatever was said
    stock      the turn model is asked at 200 ms of silence (pipecat's default): a probability above the setting takes
               the turn at once, one below it at 3 s
    fused      ours (`rejoinder/core/turns/endpointing.py`): turn model, words and the caller's own pauses, by a
    budget of
               false cut-offs

A delay is the mean silence at which ends are taken; a cut-off is a pause that was taken for an end, in percent of all
pauses. The weights of the fusion are fitted on four fifths of the clips and judged on the fifth, five times over.
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
from rejoinder.core.turns.end_of_turn import WEIGHTS, FusionWeights, complete, evidence
from rejoinder.core.turns.endpointing import PauseStats, TurnDetection, wait_s
from rejoinder.core.turns.transcript_ending import TranscriptEnding, ending

Floats = npt.NDArray[np.float64]
Rule = Callable[[Silence, PauseStats, float], float]
"""The silence in ms after which a rule takes the turn, by the caller's habit and the rule's setting."""

STOCK_ASKED_MS = 200.0
STOCK_FALLBACK_MS = 3000.0
FOLDS = 5
# What is believed of the weights before any silence is heard, and how firmly: the turn model is as good as it says. Its
# authors tested it on conversation, and this speech is read; without it the fit would forget half of a sure "no".
PRIOR = FusionWeights(bias=0.0, turn_model=1.0, finished=0.0, open=0.0)
FIRMNESS = FusionWeights(bias=0.0, turn_model=100.0, finished=5.0, open=5.0)
STEPS = 30
# Where the published benchmark compares: cut-offs at a mean delay, and the delay at a rate of cut-offs.
AT_DELAY_MS = (300.0, 600.0)
AT_CUT_OFFS = (0.05, 0.10)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One setting of a rule: mean delay of the ends, and the share of pauses cut."""

    setting: float
    delay_ms: float
    cut: float


def fit(silences: Sequence[Silence]) -> FusionWeights:
    """The logistic regression of "this was the end" on the evidence, drawn towards PRIOR."""
    known = [silence for silence in silences if silence.resumed_ms is None or is_pause(silence)]
    inputs = np.array([evidence(silence.later, _words(silence)) for silence in known])
    ended = np.array([silence.resumed_ms is None for silence in known], np.float64)
    prior, penalty = np.array(astuple(PRIOR)), np.diag(astuple(FIRMNESS))
    weights = prior
    for _ in range(STEPS):
        likely = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (likely - ended) + penalty @ (weights - prior)
        curve = (inputs * (likely * (1 - likely))[:, None]).T @ inputs + penalty
        weights = weights - np.linalg.solve(curve, slope)
    return FusionWeights(*(round(float(weight), 2) for weight in weights))


def is_pause(silence: Silence) -> bool:
    """Whether it lies inside a sentence."""
    return silence.resumed_ms is not None and not silence.sentence_over


def fixed(silence: Silence, habit: PauseStats, setting: float) -> float:
    return setting


def stock(silence: Silence, habit: PauseStats, setting: float) -> float:
    if silence.later > setting:
        return max(STOCK_ASKED_MS, silence.soft_ms) + silence.judged_ms
    return STOCK_FALLBACK_MS


def fused(weights: FusionWeights, settings: Settings) -> Rule:
    """Ours, decided as the host decides it: by words that read finished, else by the turn model and the words."""

    def rule(silence: Silence, habit: PauseStats, setting: float) -> float:
        endpointing = settings.endpointing.model_copy(update={"cut_off_budget": setting})
        told_ms = silence.soft_ms + silence.transcribed_ms
        words = _words(silence)
        if words is TranscriptEnding.FINISHED and endpointing.finished_probability:
            return max(told_ms, _wait_ms(endpointing, endpointing.finished_probability, habit))
        asked_ms = max(silence.soft_ms, min(endpointing.ask_after_ms, told_ms))
        probability = complete(silence.later, words, weights)
        return max(asked_ms + silence.judged_ms, _wait_ms(endpointing, probability, habit))

    return rule


def _wait_ms(settings: EndpointingSettings, probability: float | None, habit: PauseStats) -> float:
    return wait_s(TurnDetection(), settings, probability, habit) * 1000


def _words(silence: Silence) -> TranscriptEnding:
    return ending(silence.text)


def point(rule: Rule, setting: float, silences: Sequence[Silence]) -> CurvePoint:
    """One setting over all silences; a caller's habit is learned within its clip."""
    delays, pauses, cut = [], 0, 0
    clip, habit = "", PauseStats()
    for silence in silences:
        if silence.clip != clip:
            clip, habit = silence.clip, PauseStats()
        taken_ms = rule(silence, habit, setting)
        if silence.resumed_ms is None:
            delays.append(taken_ms)
            continue
        habit = habit.with_pause(silence.resumed_ms / 1000)
        if not silence.sentence_over:
            pauses += 1
            cut += silence.resumed_ms > taken_ms
    return CurvePoint(setting, float(np.mean(delays)), cut / max(1, pauses))


def crossed(rule_of: Callable[[FusionWeights], Rule], setting: float, silences: Sequence[Silence]) -> CurvePoint:
    """One setting, each clip judged by weights that never saw it."""
    names = sorted({silence.clip for silence in silences})
    points = []
    for fold in range(FOLDS):
        held = set(names[fold::FOLDS])
        judged = [silence for silence in silences if silence.clip in held]
        rule = rule_of(fit([silence for silence in silences if silence.clip not in held]))
        points.append((point(rule, setting, judged), judged))
    ends = [sum(s.resumed_ms is None for s in judged) for _, judged in points]
    pauses = [sum(is_pause(silence) for silence in judged) for _, judged in points]
    delay_ms = float(np.average([found.delay_ms for found, _ in points], weights=ends))
    return CurvePoint(setting, delay_ms, float(np.average([found.cut for found, _ in points], weights=pauses)))


def cut_at(points: Sequence[CurvePoint], delay_ms: float) -> float | None:
    """The least share of pauses cut at a mean delay of at most `delay_ms`; None if the rule is never so quick."""
    return min((found.cut for found in points if found.delay_ms <= delay_ms), default=None)


def delay_at(points: Sequence[CurvePoint], cut: float) -> float | None:
    """The least mean delay at which at most this share of pauses is cut."""
    return min((found.delay_ms for found in points if found.cut <= cut), default=None)


def _told(value: float | None, scale: float, unit: str) -> str:
    return "never" if value is None else f"{value * scale:.1f}{unit}" if unit == "%" else f"{value:.0f}{unit}"


def line(name: str, points: Sequence[CurvePoint]) -> str:
    """One rule's line of the table."""
    cuts = [_told(cut_at(points, delay_ms), 100, "%") for delay_ms in AT_DELAY_MS]
    delays = [_told(delay_at(points, cut), 1, " ms") for cut in AT_CUT_OFFS]
    return f"| {name} | " + " | ".join([*cuts, *delays]) + " |"


def main() -> None:
    """Print the table, the weights of all clips, and the defaults' own point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    silences = [Silence(**entry) for entry in json.loads(given.file.read_text(encoding="utf-8"))["silences"]]
    settings = Settings()
    pauses = [silence.resumed_ms / 1000 for silence in silences if silence.resumed_ms and is_pause(silence)]
    finished = [silence for silence in silences if _words(silence) is TranscriptEnding.FINISHED]
    ends = sum(silence.resumed_ms is None for silence in finished)
    print(f"{len(silences)} silences, {len(pauses)} of them pauses, mean {np.mean(pauses):.2f} s")
    print(f"reads finished: {len(finished)}, of which {ends} are ends")
    print(f"turn model, one decision: p99 {np.percentile([s.judged_ms for s in silences], 99):.0f} ms (the guide: 75)")
    print(f"weights of all clips: {fit(silences)}")
    print("| rule | cut-offs at 300 ms | at 600 ms | delay at 5% cut-offs | at 10% |\n|---|---|---|---|---|")
    waits = [float(wait) for wait in range(40, 3000, 20)]
    budgets = [float(budget) for budget in np.geomspace(0.001, 0.9, 80)]
    print(line("fixed silence", [point(fixed, wait, silences) for wait in waits]))
    print(line("turn model, stock rule", [point(stock, at, silences) for at in np.linspace(0.0, 1.0, 201)]))
    print(line("fused", [crossed(lambda w: fused(w, settings), budget, silences) for budget in budgets]))
    for name, rule, setting in (
        ("fixed 500 ms", fixed, 500.0),
        ("stock rule at 0.5", stock, 0.5),
        ("ours, as configured", fused(WEIGHTS, settings), settings.endpointing.cut_off_budget),
    ):
        found = point(rule, setting, silences)
        print(f"{name}: mean delay {found.delay_ms:.0f} ms, {found.cut:.1%} of pauses cut")


if __name__ == "__main__":
    main()
