"""The language model's backends: a primary and an optional backup, and which of them may get a request now."""

from __future__ import annotations

import logging
from collections.abc import Callable

from actors.stages.ports import LlmPort
from rejoinder.core.errors import ConfigError, Overloaded, RejoinderError
from rejoinder.core.resilience.retry_limits import BackendPauses

logger = logging.getLogger(__name__)


class LlmBackends:
    """The backends of a host's language model. Backend 0 is the primary, backend 1 the backup.

    Attributes:
        has_backup: True if there is a second backend.
        configuration_fault: The newest fault of the configuration (key, model, address) that a backend reported; None
            after an answer.
    """

    def __init__(self, primary: LlmPort, backup: LlmPort | None, clock: Callable[[], float]) -> None:
        """Create backends without pauses; `clock` returns the monotonic time in seconds."""
        self.has_backup = backup is not None
        self.configuration_fault: ConfigError | None = None
        self._primary = primary
        self._backup = backup
        self._clock = clock
        self._pauses = BackendPauses()

    def port(self, backend: int) -> LlmPort:
        """Return the port of backend 0 or 1."""
        return self._backup if self._backup and backend else self._primary

    def choose(self, number: int, *, small: bool) -> int:
        """Return the backend, 0 or 1, for attempt `number` at an answer.

        Even attempts go to the primary, and odd ones to the backup (if any). For a request for the small model it is
        the other way round. A backend that asked for a pause gets no attempt while the other one takes requests.
        """
        if not self.has_backup:
            return 0
        chosen = (number + small) % 2
        return 1 - chosen if self.paused_s(chosen) and not self.paused_s(1 - chosen) else chosen

    def paused_s(self, backend: int) -> float:
        """Return the seconds for which a backend asked to get no request; 0 if it takes requests."""
        return self._pauses.wait_s(backend, self._clock())

    def failed(self, backend: int, fault: RejoinderError) -> None:
        """Record a fault that concerns a whole backend: a server that asks for a pause, or a wrong configuration."""
        if isinstance(fault, Overloaded) and fault.shared:
            self._pauses.refused(backend, fault.retry_after_s, self._clock())
        if isinstance(fault, ConfigError):
            if str(fault) != str(self.configuration_fault):
                logger.error("the language model is misconfigured: %s", fault)
            self.configuration_fault = fault

    def answered(self) -> None:
        """Record a complete answer: the configuration works."""
        self.configuration_fault = None
