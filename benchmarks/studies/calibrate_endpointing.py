"""Calibration of endpointing: `python -m benchmarks.studies.calibrate_endpointing FEATURES`.

FEATURES is the development file of `python -m benchmarks.studies.endpoint_dataset`. The command

1. adds what the file lacks: the prosody, and the language model's probability that the message ends (kept in a file
   beside FEATURES, because it takes minutes),
2. fits the weights of the end-of-turn probability for each combination of evidence, by a regularized logistic
   regression over all silences of at least 250 ms,
3. measures for each budget the probability from which a turn may end at once. Every probability used for this comes
   from a fit without the event's content (cross-validation),
4. prints what each piece of evidence adds, and writes the table, by default the product's (`--out`).

`--check HELD_OUT` sets nothing. It applies the table to other silences and prints the share of pauses that each budget
cuts off, with its 95% interval. Every rule is fixed by then, so do this once.

A pause counts if it was inserted inside a phrase or a number and lasts 0.3 to 1 s. It is cut off if the turn ends
before speech is detected again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import wave
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.stages.ports import LlmRequest
from deployments.llm import open_engine
from loadtest.results.intervals import wilson
from rejoinder.core.audio.pcm import STT_RATE, pcm16_to_float
from rejoinder.core.audio.prosody import prosody_of
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings
from rejoinder.core.turns.end_of_turn import EndOfTurnTable, TurnEvidence, features, log_odds
from rejoinder.core.turns.endpointing import EndpointRule, TurnDetection, endpoint_silence_s
from rejoinder.core.turns.transcript_ending import bare_words
from rejoinder.store.end_of_turn_table import SHIPPED, load_table, rendered

Floats = npt.NDArray[np.float64]

PIECES = ("words", "message_end", "turn_model")
COMBINATIONS = (
    ("words", "message_end", "turn_model"),
    ("words", "message_end"),
    ("words", "turn_model"),
    ("words",),
    ("turn_model",),
)
ABLATIONS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("all evidence", PIECES, True),
    ("without the language model", ("words", "turn_model"), True),
    ("without the turn detector", ("words", "message_end"), True),
    ("without prosody", PIECES, False),
    ("words and prosody", ("words",), True),
    ("words alone", ("words",), False),
    ("turn detector alone", ("turn_model",), False),
)
"""Rows of the table that `ablation` prints: (name, pieces of evidence, whether the prosody is used)."""

LEAST_MS = 250.0
"""Shortest silence in milliseconds that the weights are fitted on. Shorter pauses end before any evidence is known."""
COUNTED_MS = (300.0, 1064.0)
"""Shortest and longest pause that counts for the budget: milliseconds until speech is detected again, which is two
windows (64 ms) after it begins.
"""
WORDS_MS, SOUND_MS = 200.0, 300.0
"""Silences in milliseconds after which the words are known, and after which the turn detector's probability is too."""
TURN_MODEL_AT = "200"
BUDGETS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3)
RIDGE = 1.0
SIGNS = {
    **dict.fromkeys(("message_end", "turn_model", "question", "digits_done", "address_done"), 1.0),
    **dict.fromkeys(("open", "trailing_mark", "clause", "digits_open", "digits", "address_open"), -1.0),
    **dict.fromkeys(("list", "spelling", "one_word", "two_words"), -1.0),
}
"""Required sign (1 or -1) of an input's weight, by input. A fit on a few hundred synthetic events can give a weight the
opposite sign, which would not generalize.
"""
STEPS, FOLDS, SEEDS = 30, 10, (0, 1, 2)


@dataclass(frozen=True, slots=True)
class LabelledSilence:
    """A silence of a corpus event, with the evidence whether the turn is over.

    Attributes:
        content: The words or clip of the event. Silences of the same content are in the same cross-validation fold.
        kind: The event's kind.
        ended: True if the caller's turn was over.
        counted: True if it is a pause that counts for the budget of pauses that may be cut off.
        resumed_ms: Milliseconds of silence after which speech was detected again; infinite if the turn was over.
        evidence: All evidence about the silence.
    """

    content: str
    kind: str
    ended: bool
    counted: bool
    resumed_ms: float
    evidence: TurnEvidence

    @property
    def human(self) -> bool:
        """True for human speech, False for a synthetic voice."""
        return self.kind.startswith("human")

    def reduced(self, pieces: Sequence[str], prosody: bool = True) -> TurnEvidence:
        """Return the evidence with these pieces only: "words", "message_end", "turn_model", and the prosody if True."""
        evidence = self.evidence
        return replace(
            evidence,
            text=evidence.text if "words" in pieces else None,
            message_end=evidence.message_end if "message_end" in pieces else None,
            turn_model=evidence.turn_model if "turn_model" in pieces else None,
            prosody=evidence.prosody if prosody else None,
        )


def read(file: Path, ends: Mapping[str, float | None]) -> list[LabelledSilence]:
    """Return the silences of a file that `endpoint_dataset` wrote.

    Silences between two sentences of a recording are left out, because it is right both to wait and to answer there.

    Args:
        file: The file.
        ends: The language model's probability that the message ends, by `end_key`; None if not known.
    """
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [labelled(row, ends) for row in rows if row["label"] != "between" and TURN_MODEL_AT in row["turn"]]


def labelled(row: Mapping[str, Any], ends: Mapping[str, float | None]) -> LabelledSilence:
    """Return the silence in one line (`row`) of a file of `endpoint_dataset`.

    `ends` has the language model's probability that the message ends, by `end_key`.
    """
    ended = row["label"] == "end"
    resumed_ms = float("inf") if ended else float(row["resumed_ms"])
    evidence = TurnEvidence(
        text=row["text"],
        logprob=row["avg_logprob"],
        asked=row["asked"],
        message_end=ends.get(end_key(row)) or 0.0,
        turn_model=row["turn"][TURN_MODEL_AT],
        prosody=_prosody(row),
    )
    counted = bool(row["inserted"]) and COUNTED_MS[0] <= resumed_ms <= COUNTED_MS[1]
    return LabelledSilence(
        row["event"].split("/")[0],
        kind=row["kind"],
        ended=ended,
        counted=counted,
        resumed_ms=resumed_ms,
        evidence=evidence,
    )


def _prosody(row: Mapping[str, Any]) -> Any:
    with wave.open(row["wav"]) as recording:
        pcm = recording.readframes(recording.getnframes())
    first, last = (round(row[name] * STT_RATE) for name in ("start_s", "speech_end_s"))
    return prosody_of(pcm16_to_float(pcm)[first : last + round(row["soft_ms"] * STT_RATE / 1000)])


def end_key(row: Mapping[str, Any]) -> str:
    """Return the key under which the language model's end probability is stored: the agent's question and the words."""
    return f"{row['asked']}|{bare_words(row['text'])}"


def message_ends(file: Path, settings: Settings, kept: Path) -> dict[str, float | None]:
    """Return the language model's probability that the message ends, for each text in `file`, by `end_key`.

    The prompt has the default instructions, so delete `kept` when they or the model change.

    Args:
        file: A file that `endpoint_dataset` wrote.
        settings: Settings of the language model.
        kept: JSON file that stores the probabilities between runs. Only missing ones are computed.
    """
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    known: dict[str, float | None] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    missing = {end_key(row): row for row in rows if end_key(row) not in known and bare_words(row["text"])}
    if missing:
        known |= asyncio.run(_asked(missing, settings))
        kept.write_text(json.dumps(known, indent=0), encoding="utf-8")
    return known


async def _asked(missing: Mapping[str, Mapping[str, Any]], settings: Settings) -> dict[str, float | None]:
    """Return the language model's probability that the message ends, for each row of `missing`, by the same key."""
    engine = open_engine(settings)
    known: dict[str, float | None] = {}
    for key, row in missing.items():
        said = (ChatMessage("assistant", row["asked"]),) if row["asked"] else ()
        caller = ChatMessage("user", bare_words(row["text"]))
        instructions = ChatMessage("system", settings.conversation.instructions)
        request = LlmRequest((instructions, *said, caller), max_tokens=0, prefill=True, judge_end=True)
        async with aclosing(engine.stream(request)) as deltas:
            async for delta in deltas:
                known[key] = delta.usage.end_probability if delta.usage else None
    return known


def fit(evidence: Sequence[TurnEvidence], ended: Floats) -> dict[str, float]:
    """Return the weights of a logistic regression by name of the input, fitted by Newton's method with a ridge penalty.

    An input whose weight gets the wrong sign (SIGNS) is left out, and the others are fitted again.

    Args:
        evidence: The evidence at each silence.
        ended: 1 for each silence after which the turn was over, 0 for a pause.
    """
    inputs = [features(one) for one in evidence]
    names = list(inputs[0])
    while True:
        weights = dict(
            zip(names, _newton(np.array([[row[name] for name in names] for row in inputs]), ended), strict=True)
        )
        wrong = {name for name, weight in weights.items() if weight * SIGNS.get(name, weight) < 0}
        if not wrong:
            return {name: round(float(weight), 3) for name, weight in weights.items()}
        names = [name for name in names if name not in wrong]


def _newton(x: Floats, ended: Floats) -> Floats:
    """Return the weights of the columns of `x` (a row per silence). The first column, the bias, is not penalized.

    `ended` is 1 for each silence after which the turn was over, 0 for a pause.
    """
    weights, penalty = np.zeros(x.shape[1]), np.eye(x.shape[1]) * RIDGE
    penalty[0] = 0.0
    for _ in range(STEPS):
        predicted = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (predicted - ended) + penalty @ weights
        hessian = (x.T * (predicted * (1 - predicted))) @ x + penalty
        weights = weights - np.linalg.solve(hessian, gradient)
    return weights


def trained(silences: Sequence[LabelledSilence], pieces: Sequence[str], prosody: bool = True) -> dict[str, float]:
    """Return the weights for one combination of evidence, fitted on the silences of at least LEAST_MS.

    The turn detector was trained on people. On synthetic voices it is worse than chance, so its weight is fitted on
    human speech only: for a synthetic voice its probability is replaced by 0.5.

    Args:
        silences: The silences.
        pieces: Names of the pieces of evidence, as in `LabelledSilence.reduced`.
        prosody: True to use the prosody as well.
    """
    used = [silence for silence in silences if silence.resumed_ms >= LEAST_MS]
    evidence = [one.reduced(pieces, prosody) for one in used]
    evidence = [
        one if silence.human or one.turn_model is None else replace(one, turn_model=0.5)
        for silence, one in zip(used, evidence, strict=True)
    ]
    return fit(evidence, np.array([one.ended for one in used], np.float64))


def cross_validated(silences: Sequence[LabelledSilence], pieces: Sequence[str], prosody: bool = True) -> Floats:
    """Return the probability of an end of turn for each silence, from weights fitted without the silence's content.

    The log-odds are averaged over three random divisions of the contents into ten folds. `pieces` and `prosody` choose
    the evidence, as in `LabelledSilence.reduced`.
    """
    contents = sorted({silence.content for silence in silences})
    total = np.zeros(len(silences))
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(contents))
        fold_of = {content: int(order[number]) % FOLDS for number, content in enumerate(contents)}
        for fold in range(FOLDS):
            weights = trained([one for one in silences if fold_of[one.content] != fold], pieces, prosody)
            for number, one in enumerate(silences):
                if fold_of[one.content] == fold:
                    total[number] += log_odds(weights, one.reduced(pieces, prosody))
    return np.asarray(1 / (1 + np.exp(-total / len(SEEDS))), np.float64)


def threshold_of(scores: Floats, share: float) -> float:
    """Return the probability of an end of turn that the given share of the pauses reaches.

    `scores` has the highest probability of each pause.
    """
    return round(float(np.quantile(scores, 1 - share)), 4)


def calibrated(silences: Sequence[LabelledSilence], provenance: Mapping[str, object]) -> EndOfTurnTable:
    """Return the table: weights fitted on all silences, thresholds measured on cross-validated probabilities.

    `provenance` is stored in the table and says how it was made.
    """
    weights = {"+".join(pieces): trained(silences, pieces) for pieces in COMBINATIONS}
    scores = np.maximum(cross_validated(silences, COMBINATIONS[1]), cross_validated(silences, PIECES))
    pauses = scores[[silence.counted for silence in silences]]
    thresholds = tuple((budget, threshold_of(pauses, budget)) for budget in BUDGETS)
    return EndOfTurnTable(weights, thresholds, provenance)


def delay_ms(
    silence: LabelledSilence, rule: EndpointRule, probability: Callable[[TurnEvidence], float | None]
) -> float:
    """Return after how many ms of silence the turn ends, if the evidence arrives at its usual times.

    The words are assumed to arrive after WORDS_MS and the turn detector's result after SOUND_MS.

    Args:
        silence: The silence. When speech resumes (`resumed_ms`) is ignored.
        rule: Maps a probability to the silence that ends the turn.
        probability: Returns the probability that the turn is over, from the evidence; None if unknown.
    """
    first = silence.reduced(("words", "message_end"))
    soonest = max(WORDS_MS, _silence_ms(rule, probability(first)))
    if soonest <= SOUND_MS:
        return soonest
    return max(SOUND_MS, _silence_ms(rule, probability(silence.evidence)))


def _silence_ms(rule: EndpointRule, probability: float | None) -> float:
    return endpoint_silence_s(TurnDetection(), rule, probability) * 1000


def report(silences: Sequence[LabelledSilence], table: EndOfTurnTable, settings: Settings) -> None:
    """Print a table: for each budget, the share of pauses that is cut off, and how long finished turns wait.

    Args:
        silences: The silences to apply the table of weights and thresholds to.
        table: Weights and thresholds of the end-of-turn probability.
        settings: The section `endpointing` is used.
    """
    print("| budget | pauses cut off (95% interval) | ends: p50 | p90 | within 300 ms |\n|---|---|---|---|---|")
    for budget in (0.01, 0.02, 0.03, 0.05, 0.08, 0.12):
        rule = EndpointRule(settings.endpointing.model_copy(update={"cut_off_budget": budget}), table)
        taken = [(one, delay_ms(one, rule, table.probability)) for one in silences]
        cut = [after < one.resumed_ms for one, after in taken if one.counted]
        ends = np.array([after for one, after in taken if one.ended])
        share = wilson(sum(cut), len(cut))
        p50, p90 = np.percentile(ends, (50, 90))
        print(
            f"| {budget:.0%} | {share.share:.1%} ({share.low:.1%} to {share.high:.1%}) of {len(cut)} | {p50:.0f} ms |"
            f" {p90:.0f} ms | {(ends <= SOUND_MS).mean():.0%} |"
        )


def ablation(silences: Sequence[LabelledSilence]) -> None:
    """Print for each set of evidence the share of finished turns that may end at once if 5% of the pauses are cut off.

    The table's last column counts turns of human speech only. The interval is a bootstrap over contents.
    """
    ended = np.array([one.ended for one in silences])
    human = np.array([one.human for one in silences])
    counted = np.array([one.counted for one in silences])
    print("| evidence | ends at once, with 5% of the pauses cut off | human speech |\n|---|---|---|")
    for name, pieces, prosody in ABLATIONS:
        scores = cross_validated(silences, pieces, prosody)
        share = _bootstrapped(silences, lambda chosen, scores=scores: _fast(scores, ended, counted, chosen))  # type: ignore[misc]  # mypy infers no type for a lambda with a default
        spoken = _fast(scores, ended & human, counted, np.arange(len(scores)))
        print(f"| {name} | {share[1]:.0%} ({share[0]:.0%} to {share[2]:.0%}) | {spoken:.0%} |")


def _fast(
    scores: Floats, ended: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_], chosen: npt.NDArray[np.intp]
) -> float:
    values = scores[chosen]
    threshold = np.quantile(values[counted[chosen]], 0.95)
    return float((values[ended[chosen]] > threshold).mean())


def _bootstrapped(
    silences: Sequence[LabelledSilence], measure: Callable[[npt.NDArray[np.intp]], float]
) -> tuple[float, float, float]:
    """Return (lower end, value on all silences, upper end) of a measure with its 95% bootstrap interval.

    The interval is over 500 draws of contents. `measure` computes the value from the indices of the drawn silences.
    """
    rng = np.random.default_rng(0)
    groups: dict[str, list[int]] = {}
    for number, silence in enumerate(silences):
        groups.setdefault(silence.content, []).append(number)
    contents = list(groups.values())
    values = []
    for _ in range(500):
        drawn = rng.integers(0, len(contents), len(contents))
        values.append(measure(np.array([index for one in drawn for index in contents[one]])))
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), measure(np.arange(len(silences))), float(high)


def main() -> None:
    """Fit and write the table, or with `--check` apply the existing table to other silences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="table to write, by default the product's")
    parser.add_argument("--check", type=Path, help="apply the table --out to these silences; write nothing")
    options = parser.parse_args()
    settings = Settings()
    file = options.check or options.features
    kept = file.with_name(f"{file.stem}-message-ends.json")
    silences = read(file, message_ends(file, settings, kept))
    counts = f"{len(silences)} silences, {sum(one.counted for one in silences)} pauses that count"
    print(f"{file.name}: {counts}, {sum(one.ended for one in silences)} ends")
    if options.check:
        report(silences, load_table(str(options.out)), settings)
        return
    if any('"split": "held-out"' in line for line in file.read_text("utf-8").splitlines()):
        parser.error("the file has held-out events; nothing may be fitted on them")
    provenance = {
        "command": "python -m benchmarks.studies.calibrate_endpointing",
        "date": date.today().isoformat(),
        "corpus": f"loadtest/turn_corpus, development part: {counts}",
        "language_model": settings.llm.model,
        "turn_detector": settings.turn_detector.model,
        "speech_to_text": f"{settings.stt.first_pass_model}, {settings.stt.model}",
    }
    table = calibrated(silences, provenance)
    options.out.write_text(rendered(table), encoding="utf-8")
    print(f"wrote {options.out}")
    ablation(silences)
    report(silences, table, settings)


if __name__ == "__main__":
    main()
