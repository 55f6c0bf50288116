"""Tests of the health of a remote server, which follows from the requests that it gets."""

from __future__ import annotations

from rejoinder.core.resilience.request_health import LEAST_FAILURES, UNREACHABLE_S, RequestHealth


def test_a_server_is_unreachable_after_failures_over_time() -> None:
    """Five requests without a response are unreachability if the first was 30 s ago. A burst is not."""
    health = RequestHealth()
    for _ in range(LEAST_FAILURES):
        health.failed(100.0)
    assert health.unreachable_s(100.0) == 0.0
    assert health.unreachable_s(100.0 + UNREACHABLE_S) == UNREACHABLE_S


def test_few_failures_and_no_requests_are_healthy() -> None:
    """Four failures within an hour, or no request at all, do not make a server unreachable."""
    health = RequestHealth()
    assert health.unreachable_s(1e6) == 0.0
    for number in range(LEAST_FAILURES - 1):
        health.failed(900.0 * number)
    assert health.unreachable_s(3600.0) == 0.0


def test_a_response_ends_the_failures() -> None:
    """A response of any status makes the server healthy, and later failures count anew."""
    health = RequestHealth()
    for _ in range(LEAST_FAILURES):
        health.failed(0.0)
    health.responded()
    for _ in range(LEAST_FAILURES):
        health.failed(50.0)
    assert health.unreachable_s(60.0) == 0.0
