"""The docstrings of `Scenario` and `CallerBehavior` document every `--set` key with its default and range."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from loadtest.scenario.parsing import CODECS
from loadtest.scenario.scenario import BEHAVIOR_RANGES, SCENARIO_RANGES, Arrivals, CallerBehavior, Scenario
from rejoinder.core.wire.formats import AudioFormat
from tests.loadtest.documented import attributes

CLASSES = [(Scenario, SCENARIO_RANGES), (CallerBehavior, BEHAVIOR_RANGES)]


def _shown(default: Any) -> str:
    """Return a default as a user writes it after `--set KEY=`."""
    if isinstance(default, AudioFormat):
        return next(name for name, codec in CODECS.items() if codec is default)
    if isinstance(default, Enum):
        return str(default.value)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize(("cls", "ranges"), CLASSES)
def test_every_key_is_documented_in_order(cls: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """The `Attributes` section of the class docstring lists exactly the fields of the class, in order."""
    assert list(attributes(cls)) == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(("cls", "ranges"), CLASSES)
def test_documented_defaults_are_the_defaults(cls: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """A documented "Default D." is the field's default. "Default: ..." describes a computed or empty default."""
    for field in dataclasses.fields(cls):
        text = attributes(cls)[field.name]
        literal = re.search(r"Default ([^.]*(?:\.\d+)?)\.", text)
        if literal:
            assert literal[1] == _shown(field.default), field.name
        elif "Default: " in text:
            assert field.default in (None, "", ()) or field.default is dataclasses.MISSING, field.name
        else:
            assert field.default is dataclasses.MISSING, field.name


@pytest.mark.parametrize(("cls", "ranges"), CLASSES)
def test_documented_ranges_are_the_enforced_ones(cls: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """A documented "Range L to H." states the enforced bounds. Every number with bounds has such a sentence."""
    found = {
        name: (float(match[1]), float(match[2]))
        for name, text in attributes(cls).items()
        if (match := re.search(r"Range ([\d.]+) to ([\d.]*\d)\.", text))
    }
    assert found == ranges


def test_every_arrival_pattern_is_documented() -> None:
    """Each member of `Arrivals` has an entry in its `Attributes` section."""
    assert list(attributes(Arrivals)) == [arrival.name for arrival in Arrivals]
