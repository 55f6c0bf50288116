"""Tests of the host's time limits: a host that is removed must be able to keep its calls until they end."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import HostSettings, parse_settings


def test_a_shutdown_timeout_below_the_longest_session_is_refused() -> None:
    """A `graceful_shutdown_timeout_s` below `session_max_s` is refused: Serve would kill a host that has calls."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({"host": {"graceful_shutdown_timeout_s": 900}})
    assert refused.value.field == "args.host"
    assert "graceful_shutdown_timeout_s 900 is below session_max_s 3600" in refused.value.message


def test_the_default_shutdown_timeout_outlasts_the_longest_session() -> None:
    """The default shutdown timeout is longer than the longest call, so its last reply can be finished."""
    settings = HostSettings()
    assert settings.graceful_shutdown_timeout_s > settings.session_max_s


def test_equal_timeouts_are_accepted() -> None:
    """A shutdown timeout equal to the longest session is accepted."""
    limits = {"session_max_s": 600, "graceful_shutdown_timeout_s": 600}
    assert parse_settings({"host": limits}).host.graceful_shutdown_timeout_s == 600


def test_an_error_of_a_section_does_not_print_the_section() -> None:
    """If two fields contradict each other, the error has their names and values, and not the whole section."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({"host": {"graceful_shutdown_timeout_s": 1, "metrics_port": 9}})
    assert "metrics_port" not in str(refused.value)
