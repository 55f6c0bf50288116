"""Tests of what hosts know about handshakes that HAProxy sends again."""

from __future__ import annotations

import pytest

from rejoinder.core.resilience.redispatch import RETRIES, RETRY_ON, handshake_retries, refused_part


@pytest.mark.parametrize(
    ("environment", "retries"),
    [
        ({}, 0),
        ({RETRIES: "7"}, 0),
        ({RETRY_ON: "conn-failure", RETRIES: "7"}, 0),
        ({RETRY_ON: "conn-failure 503", RETRIES: "7"}, 7),
        ({RETRY_ON: "503"}, 3),
        ({RETRY_ON: "503", RETRIES: ""}, 3),
        ({RETRY_ON: "conn-failure 503", RETRIES: "0"}, 0),
    ],
)
def test_retries_follow_from_the_variables_of_haproxy(environment: dict[str, str], retries: int) -> None:
    """A refused handshake is sent again only if HAProxy retries on 503; without a number, HAProxy's default counts."""
    assert handshake_retries(environment) == retries


@pytest.mark.parametrize("retries", [0, 1, 7])
def test_the_refused_handshakes_of_one_caller_count_as_one(retries: int) -> None:
    """A caller whom HAProxy offers to hosts `retries` + 1 times in vain counts as exactly one arrival."""
    assert sum(refused_part(retries) for _ in range(retries + 1)) == pytest.approx(1.0)
