"""Tests of the choice of an utterance's language, made for utterances that the expected language fits badly."""

from __future__ import annotations

import pytest

from deployments.engines.stt.languages import LANGUAGES, best, candidates, shares
from deployments.engines.stt.transcript_guards import Hypothesis


def _decode(avg_logprob: float) -> Hypothesis:
    return Hypothesis("text", avg_logprob, 0.1, finished=True, duration_s=3.0)


def test_the_shares_of_the_known_languages_sum_to_one() -> None:
    """`shares` scales the probabilities of the languages in LANGUAGES and of the configured one to a sum of 1.

    Other languages that the detection found are left out.
    """
    shared = shares({"en": 0.2, "de": 0.2, "la": 0.6}, "fi")
    assert sum(shared.values()) == pytest.approx(1)
    assert shared["en"] == pytest.approx(0.5)
    assert set(shared) == {*LANGUAGES, "fi"}


@pytest.mark.parametrize(
    ("probabilities", "expected", "found"),
    [
        ({"en": 0.95, "de": 0.05}, "en", []),
        ({"en": 0.71, "de": 0.29}, "en", []),
        ({"en": 0.6, "de": 0.3, "nl": 0.1}, "en", ["de", "nl"]),
        ({"en": 0.3, "de": 0.3, "nl": 0.2, "fr": 0.15, "it": 0.05}, "en", ["de", "nl", "fr"]),
        ({"en": 0.5, "fr": 0.4, "ko": 0.1}, "en", ["fr"]),
        ({"zh": 0.9, "en": 0.1}, "en", ["zh"]),
        ({"de": 0.1, "en": 0.9}, "de", ["en"]),
    ],
)
def test_a_likely_expected_language_has_no_candidates(
    probabilities: dict[str, float], expected: str, found: list[str]
) -> None:
    """`candidates` returns no other language if the expected one is likely.

    Otherwise it returns the likeliest other languages to decode in. A language in another script must be likelier.
    """
    assert candidates(shares(probabilities, expected), expected) == found


def test_the_tokens_and_the_detection_decide_together() -> None:
    """The language is chosen by the decode's log-probability and by the probability that language detection gives it.

    A language with a worse decode wins at a probability of 0.8 against 0.1, and loses at equal probabilities.
    """
    decoded = {"fr": _decode(-1.2), "pl": _decode(-1.0)}
    assert best(decoded, {"fr": 0.8, "pl": 0.1}) == "fr"
    assert best(decoded, {"fr": 0.4, "pl": 0.4}) == "pl"
