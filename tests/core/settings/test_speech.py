"""The thresholds of speech detection that an operator may configure."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import parse_settings


def test_release_threshold_above_threshold_is_refused() -> None:
    """A release_threshold above threshold would end speech with the window that began it; the error names both."""
    with pytest.raises(ConfigError, match=r"release_threshold 0\.6 is above threshold 0\.5") as refused:
        parse_settings({"speech": {"threshold": 0.5, "release_threshold": 0.6}})
    assert refused.value.field == "args.speech"


def test_equal_thresholds_are_accepted() -> None:
    """Equal thresholds turn the hysteresis off, which is allowed."""
    assert parse_settings({"speech": {"threshold": 0.5, "release_threshold": 0.5}}).speech.release_threshold == 0.5
