"""Handshakes that a full host refuses and HAProxy sends to another host.

One caller may reach several hosts. A host does not know whether it is the first one, or whether another host will admit
the caller. These functions keep the sums over all hosts right.
"""

from __future__ import annotations

from collections.abc import Mapping

RETRY_ON = "RAY_SERVE_HAPROXY_RETRY_ON"
RETRIES = "RAY_SERVE_HAPROXY_RETRIES"
DEFAULT_RETRIES = 3
"""HAProxy's number of retries if the configuration contains none."""


def handshake_retries(environment: Mapping[str, str]) -> int:
    """Return how many more times HAProxy sends a handshake that is answered with 503.

    Args:
        environment: Environment variables of the node by name. Ray configures HAProxy by them.
    """
    if "503" not in environment.get(RETRY_ON, "").split():
        return 0
    return int(environment.get(RETRIES) or DEFAULT_RETRIES)


def refused_part(retries: int) -> float:
    """Return the part of a caller, above 0 and at most 1, that one refused handshake counts as an arrival.

    A caller who is refused by every host makes `retries` + 1 handshakes, so that the parts add up to one caller. A
    caller who is admitted after some refusals counts as less than two.
    """
    return 1 / (1 + retries)
