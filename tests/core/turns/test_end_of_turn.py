"""Tests of the probability that a turn is over, computed from all evidence with the shipped table of weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.prosody import Prosody
from rejoinder.core.settings.settings import EndpointingSettings
from rejoinder.core.turns.end_of_turn import EndOfTurnTable, TurnEvidence, features, is_dependent_clause
from rejoinder.core.turns.endpointing import EndpointRule
from rejoinder.store.end_of_turn_table import load_table

TABLE = load_table()
NEUTRAL = Prosody(pitch_fall=1.0, last_voiced_s=0.1, level_fall_db=3.0)
FALLING = Prosody(pitch_fall=5.0, last_voiced_s=0.2, level_fall_db=12.0)

opinions = st.floats(0, 1)
texts = st.none() | st.sampled_from(
    ["", "Yes.", "What is the capital of France?", "My phone number is, 555", "and the"]
)


def probability(evidence: TurnEvidence) -> float:
    found = TABLE.probability(evidence)
    assert found is not None
    return found


@given(texts, st.none() | opinions, st.none() | opinions)
def test_every_set_of_evidence_gives_a_probability(
    text: str | None, message_end: float | None, turn_model: float | None
) -> None:
    """The result is a probability for any evidence.

    It is None if neither a transcript nor a turn detector's result exists.
    """
    evidence = TurnEvidence(text, message_end=message_end if text is not None else None, turn_model=turn_model)
    found = TABLE.probability(evidence)
    assert (found is None) == (text is None and turn_model is None)
    assert found is None or 0 < found < 1


@given(opinions, opinions)
def test_each_model_is_believed(one: float, other: float) -> None:
    """The probability never falls if the language model or the turn detector is surer that the turn is over."""
    low, high = sorted((one, other))
    base = TurnEvidence("I would like a table", message_end=0.5, turn_model=0.5)
    assert probability(replace(base, message_end=low)) <= probability(replace(base, message_end=high))
    assert probability(replace(base, turn_model=low)) <= probability(replace(base, turn_model=high))


def test_falling_prosody_raises_the_probability() -> None:
    """The same words are more probably the end of a turn if pitch and level have fallen at their end."""
    base = TurnEvidence("I would like a table", message_end=0.3)
    assert probability(replace(base, prosody=FALLING)) > probability(replace(base, prosody=NEUTRAL))


@pytest.mark.parametrize(
    ("unfinished", "asked"),
    [
        ("My phone number is", ""),
        ("My phone number is 555", ""),
        ("My phone number is 555-012", ""),
        ("555 012.", "What is your phone number?"),
        ("My e-mail address is john dot smith", ""),
        ("I would like to book a", ""),
        ("It is on the corner of", ""),
        ("Well, I wanted to ask um", ""),
    ],
)
def test_visibly_unfinished_words_end_no_turn(unfinished: str, asked: str) -> None:
    """Words that must go on ("My phone number is") stay below the threshold of every eagerness but high.

    Prosody and turn detector indicate the end of the turn here.
    """
    evidence = TurnEvidence(unfinished, -0.3, asked, message_end=0.05, turn_model=0.95, prosody=FALLING)
    rule = EndpointRule(EndpointingSettings(), TABLE)
    for name in ("low", "medium", "auto"):
        assert probability(evidence) < rule.threshold(name)


@pytest.mark.parametrize(
    ("complete", "message_end"),
    [("What is the capital of France?", 0.94), ("Is it going to rain tomorrow?", 0.85), ("How far is the moon?", 0.8)],
)
def test_complete_questions_end_a_turn(complete: str, message_end: float) -> None:
    """A complete question with falling prosody reaches the threshold without a result of the turn detector."""
    evidence = TurnEvidence(complete, -0.05, message_end=message_end, prosody=FALLING)
    assert probability(evidence) >= EndpointRule(EndpointingSettings(), TABLE).threshold("auto")


def test_ten_digits_are_a_telephone_number() -> None:
    """With its tenth digit, a telephone number raises the probability of the end of turn by over 0.3."""
    nine, ten = (
        probability(TurnEvidence(f"My phone number is {digits}", -0.3, message_end=0.3, prosody=NEUTRAL))
        for digits in ("555 012 345", "555 012 3456")
    )
    assert ten > nine + 0.3


@pytest.mark.parametrize(
    ("sentence", "dependent"),
    [
        ("If it is possible.", True),
        ("To increase the volume,", True),
        ("If it is possible, I would like to change it.", False),
        ("To hear it again, press", True),
        ("I would like to go", False),
        ("", False),
    ],
)
def test_a_dependent_clause_needs_another(sentence: str, dependent: bool) -> None:
    """A sentence that begins with "if" or "to" and has no main clause is a dependent clause."""
    assert is_dependent_clause(sentence) is dependent


def test_the_features_do_not_depend_on_what_is_unknown() -> None:
    """Evidence that is not known adds no input: without a transcript, the inputs are a subset of those with one."""
    assert set(features(TurnEvidence(turn_model=0.5))) < set(features(TurnEvidence("Hi", turn_model=0.5)))


@given(st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_a_larger_budget_has_no_higher_threshold(one: float, other: float) -> None:
    """If a larger share of pauses may be cut off, the threshold of the probability is the same or lower."""
    low, high = sorted((one, other))
    assert TABLE.threshold(high) <= TABLE.threshold(low) + 1e-12


def test_the_threshold_is_interpolated() -> None:
    """Between two shares of cut-offs in the table, the threshold is linear in the logarithm of the share.

    Outside the table's range it is the threshold of the nearest share.
    """
    table = EndOfTurnTable(thresholds=((0.01, 0.8), (0.1, 0.6)))
    assert table.threshold(0.01) == pytest.approx(0.8)
    assert table.threshold(0.01 * 10**0.5) == pytest.approx(0.7)
    assert table.threshold(0.001) == 0.8
    assert table.threshold(0.5) == 0.6


def test_the_table_says_where_it_comes_from() -> None:
    """The shipped table names the command, date, corpus and models from which its weights come."""
    assert set(TABLE.provenance) == {
        "command",
        "date",
        "corpus",
        "language_model",
        "turn_detector",
        "speech_to_text",
    }
