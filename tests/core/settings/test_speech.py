"""Tests of the limits on the configured thresholds of speech detection."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import parse_settings


def test_release_threshold_above_threshold_is_refused() -> None:
    """A `release_threshold` above `threshold` is refused.

    A probability between the two would start speech, but the next window with the same probability would be silence.
    """
    with pytest.raises(ConfigError, match=r"release_threshold 0\.6 is above threshold 0\.5") as refused:
        parse_settings({"speech": {"threshold": 0.5, "release_threshold": 0.6}})
    assert refused.value.field == "args.speech"


def test_equal_thresholds_are_accepted() -> None:
    """`release_threshold` may equal `threshold`: speech then begins and ends at the same probability."""
    assert parse_settings({"speech": {"threshold": 0.5, "release_threshold": 0.5}}).speech.release_threshold == 0.5
