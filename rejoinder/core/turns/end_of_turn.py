"""Probability that a turn is over (`endpointing` computes the silence that ends the turn from it).

Each piece of evidence is weak alone. The language model knows which words can follow, but does not hear the intonation.
The recognizer ends fragments with a full stop. The turn detector hears intonation, but was trained on other voices, and
does not know that a telephone number lacks four digits. A logistic regression combines these pieces. Its result is
calibrated: of the silences with the probability 0.8, about 80% are ends of turns.

The pieces arrive one after another, and some may never arrive: a language model behind an API may report no
probability, and the turn detector may be late. The table (`EndOfTurnTable`) therefore has a set of weights for each
combination of pieces (`TurnEvidence.pieces`). All weights and thresholds come from the command
`python -m benchmarks.studies.calibrate_endpointing`. It fits them on the development part of the turn-taking corpus and
writes the table with its provenance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rejoinder.core.audio.prosody import Prosody
from rejoinder.core.turns.transcript_ending import TranscriptEnding, classify_ending
from rejoinder.core.turns.utterance_kind import UtteranceKind, utterance_kind

_LEAST_TURN, _LEAST_MESSAGE = 0.01, 0.002
"""Probabilities are clamped to [least, 1 - least] before their log-odds are taken."""
_LOG_ODDS_SCALE = 3.0
UNFINISHED = -2.0
"""Added to the log-odds of an unfinished number or address."""
_MANY_WORDS = 8
_LEAST_LOGPROB = -1.5
_KINDS = tuple(kind for kind in UtteranceKind if kind is not UtteranceKind.PLAIN)
# A sentence that begins with one of these needs a second clause: "If it is possible." is not complete.
_OPENERS = frozenset(
    {"if", "when", "whenever", "while", "after", "before", "because", "although", "unless", "since", "once", "as", "to"}
)
_QUESTION_WORDS = frozenset(
    {"what", "who", "where", "when", "why", "how", "which", "whose", "is", "are", "do", "does", "did", "can", "could"}
    | {"will", "would", "should", "may", "have", "has", "was", "were", "am"}
)
_WORD = re.compile(r"[\w']+")
_SENTENCE_END = re.compile(r"[.!?]\s+")


@dataclass(frozen=True, slots=True)
class TurnEvidence:
    """Evidence about whether a silence ends the turn. A piece that has not arrived, or is not available, is None.

    Attributes:
        text: The transcript of the utterance so far.
        logprob: Mean log-probability of the transcript's tokens (natural logarithm).
        asked: What the assistant said before the utterance; "" if nothing.
        message_end: The language model's probability that the caller's message ends here.
        turn_model: The turn detector's probability that the turn is over.
        prosody: The prosody at the end of speech. None also if there is too little voiced sound.
        language: Language code of the transcript.
    """

    text: str | None = None
    logprob: float = 0.0
    asked: str = ""
    message_end: float | None = None
    turn_model: float | None = None
    prosody: Prosody | None = None
    language: str = "en"

    @property
    def pieces(self) -> str:
        """The pieces that are known, such as "words+message_end", which name a set of weights. "" if none is known."""
        known = (("words", self.text), ("message_end", self.message_end), ("turn_model", self.turn_model))
        return "+".join(name for name, value in known if value is not None)

    @property
    def kind(self) -> UtteranceKind:
        """The kind of the utterance's end; PLAIN without a transcript."""
        return utterance_kind(self.text or "", self.asked, self.language)


def features(evidence: TurnEvidence) -> dict[str, float]:
    """Return the inputs of the logistic regression, by name. A piece of evidence that is None gives no input.

    Each value is scaled to about -2 to 2, so that one strength of regularization suits all inputs. Without prosody, the
    input "no_pitch" is 1.
    """
    inputs = {"bias": 1.0, **_prosody_features(evidence.prosody)}
    if evidence.message_end is not None:
        inputs["message_end"] = _log_odds(evidence.message_end, _LEAST_MESSAGE)
    if evidence.turn_model is not None:
        inputs["turn_model"] = _log_odds(evidence.turn_model, _LEAST_TURN)
    if evidence.text is not None:
        inputs |= _word_features(evidence.text, evidence)
    return inputs


def _log_odds(probability: float, least: float) -> float:
    clamped = min(max(probability, least), 1 - least)
    return math.log(clamped / (1 - clamped)) / _LOG_ODDS_SCALE


def _prosody_features(prosody: Prosody | None) -> dict[str, float]:
    if prosody is None:
        return {"no_pitch": 1.0, "pitch_fall": 0.0, "last_voiced": 0.0, "level_fall": 0.0}
    return {
        "no_pitch": 0.0,
        "pitch_fall": prosody.pitch_fall / 6,
        "last_voiced": min(prosody.last_voiced_s, 0.4) / 0.4,
        "level_fall": min(max(prosody.level_fall_db, -20.0), 20.0) / 10,
    }


def _word_features(text: str, evidence: TurnEvidence) -> dict[str, float]:
    ending = classify_ending(text, evidence.language)
    count = len(_WORD.findall(text))
    stripped = text.strip()
    newest = _SENTENCE_END.split(stripped)[-1]
    return {
        "finished": float(ending is TranscriptEnding.FINISHED),
        "open": float(ending is TranscriptEnding.OPEN),
        "question": float(stripped.endswith("?") and _first_word(newest) in _QUESTION_WORDS),
        "trailing_mark": float(stripped.endswith((",", ";", ":", "...", "\u2026", "-"))),
        "clause": float(evidence.language == "en" and is_dependent_clause(newest)),
        "one_word": float(count == 1),
        "two_words": float(count == 2),
        "length": math.log2(1 + min(count, _MANY_WORDS)) / 4,
        "confidence": max(evidence.logprob, _LEAST_LOGPROB),
        **{kind.value: float(evidence.kind is kind) for kind in _KINDS},
    }


def is_dependent_clause(sentence: str) -> bool:
    """Return True if an English sentence begins with a dependent clause and nothing follows it ("If I may.")."""
    if _first_word(sentence) not in _OPENERS:
        return False
    parts = sentence.split(",")
    return len(parts) == 1 or len(parts[-1].split()) <= 1


def _first_word(sentence: str) -> str:
    found = _WORD.search(sentence)
    return found.group().lower() if found else ""


def log_odds(weights: Mapping[str, float], evidence: TurnEvidence) -> float:
    """Return the log-odds that the turn is over: the weighted sum of the inputs (`features`).

    After a number that lacks digits, or an e-mail address without its domain, the fixed value UNFINISHED is added. The
    corpus has too few of these for the regression to learn a weight that is strong enough.

    Args:
        weights: The weight of each input, by the input's name.
        evidence: The evidence.
    """
    fixed = UNFINISHED if evidence.kind.unfinished else 0.0
    return fixed + sum(weights.get(name, 0.0) * value for name, value in features(evidence).items())


@dataclass(frozen=True, slots=True)
class EndOfTurnTable:
    """Weights and thresholds of the end-of-turn decision.

    Attributes:
        weights: For each combination of pieces (`TurnEvidence.pieces`), the weight of each input.
        thresholds: Pairs of a budget (share of pauses that may be cut off) and the probability from which a turn ends
            at once with this budget, by rising budget.
        provenance: How the table was made: command, date, models and what was measured.
    """

    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    thresholds: tuple[tuple[float, float], ...] = ((1.0, 0.5),)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def probability(self, evidence: TurnEvidence) -> float | None:
        """Return the probability that the turn is over; None if the table has no weights for these pieces."""
        weights = self.weights.get(evidence.pieces)
        if weights is None:
            return None
        return 1 / (1 + math.exp(-log_odds(weights, evidence)))

    def threshold(self, budget: float) -> float:
        """Return the probability from which a turn ends at once, for a share of pauses that may be cut off.

        Between two budgets of the table, the threshold is interpolated on the logarithm of the budget. Below the lowest
        and above the highest budget, it is the threshold of that budget.
        """
        below = above = None
        for known, threshold in self.thresholds:
            if known <= budget:
                below = known, threshold
            elif above is None:
                above = known, threshold
        if below is None or above is None:
            return (below or above or (1.0, 0.5))[1]
        share = math.log(budget / below[0]) / math.log(above[0] / below[0])
        return below[1] + share * (above[1] - below[1])
