"""How long an HTTP request waits for a stage, and which failures are repeated."""

from __future__ import annotations

from rejoinder.core.errors import BackendError, Overloaded

ATTEMPT_S = 30.0
"""Seconds that one part of a recording may wait for the recognizer, and be decoded. Calls come before it."""
GIVE_UP_S = 60.0
"""Seconds for which a failed stage is asked again after a request has begun. Clients wait longer: ten minutes for
openai-python."""
CHAT_GIVE_UP_S = 2.0
"""The same before the first token of a chat completion: a client that may ask elsewhere is told soon."""


def covered(*, begun: bool) -> tuple[type[Exception], ...]:
    """Return the failures after which a stage is asked again.

    A full queue is repeated only if the request has `begun`, because then the work so far would be lost. Otherwise the
    client is refused, and may ask another host.
    """
    return (BackendError, TimeoutError, Overloaded) if begun else (BackendError, TimeoutError)
