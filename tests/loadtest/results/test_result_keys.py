"""The docstrings of the result dataclasses document every key of the JSON results."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

import pytest

from loadtest.results.result import (
    Counts,
    FitnessCheck,
    Latency,
    Region,
    RunOutcome,
    RunResult,
    TimelineSlice,
    Verdict,
)
from loadtest.results.spread import Spread
from loadtest.results.turn_record import ServerReport, TurnOutcome, TurnRecord
from tests.loadtest.documented import attributes

CLASSES = (Counts, FitnessCheck, Latency, Region, RunResult, TimelineSlice, Verdict, Spread, TurnRecord)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_key_is_documented_in_order(cls: Any) -> None:
    """The `Attributes` section of a result class's docstring lists exactly its fields, each with a sentence."""
    documented = attributes(cls)
    assert list(documented) == [field.name for field in dataclasses.fields(cls)]
    assert all(text.endswith(".") for text in documented.values())


@pytest.mark.parametrize("outcomes", [RunOutcome, TurnOutcome])
def test_every_outcome_is_documented(outcomes: type[Enum]) -> None:
    """The `Attributes` section of an outcome enum has an entry for each member, in order."""
    assert list(attributes(outcomes)) == [outcome.name for outcome in outcomes]


def test_every_field_of_the_server_report_is_documented() -> None:
    """The docstring of `ServerReport` describes each key that is read from `response.done`'s field `rejoinder`."""
    assert list(attributes(ServerReport)) == list(ServerReport.model_fields)
