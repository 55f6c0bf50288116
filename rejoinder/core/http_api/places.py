"""Places of the HTTP requests of single stages on one host: how many are served at a time, and why one is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.settings.access.stage_http import StageHttpSettings


class StageRoute(Enum):
    """Kinds of requests, by the stage that serves them."""

    TRANSCRIPTION = "stt"
    SPEECH = "tts"
    CHAT = "llm"


@dataclass(frozen=True, slots=True)
class HostState:
    """What a host knows of its load when a request arrives.

    Attributes:
        lost_stages: Names of the stages that the host cannot reach.
        late: True if the event loop is so late that the host refuses calls.
        calls: Number of live calls.
        stages_full: True if the stages have no capacity to spare beside the calls.
    """

    lost_stages: tuple[str, ...] = ()
    late: bool = False
    calls: int = 0
    stages_full: bool = False


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """Why a request is refused.

    Attributes:
        status: HTTP status: 503 if another host may serve it, 429 if the key has too many requests.
        message: The reason.
    """

    status: int
    message: str


@dataclass(slots=True)
class RequestPlaces:
    """Counts the running requests of one host. Call `leave` for each one that `enter` has counted."""

    settings: StageHttpSettings
    _running: Counter[StageRoute] = field(default_factory=Counter)
    _by_key: Counter[str] = field(default_factory=Counter)

    def enter(self, route: StageRoute, key: str, state: HostState) -> RequestRefusal | None:
        """Count a request and return None. If it cannot be served now, return why and count nothing.

        Args:
            route: The kind of request.
            key: Digest of the API key; "" if the host has no keys.
            state: The host's load.
        """
        if route.value in state.lost_stages:
            return RequestRefusal(503, f"This host cannot reach {route.value}.")
        if state.late:
            return RequestRefusal(503, "This host is late: its calls come first.")
        if state.calls and state.stages_full:
            return RequestRefusal(503, "The calls need the capacity of the stages.")
        most = {
            StageRoute.TRANSCRIPTION: self.settings.transcriptions,
            StageRoute.SPEECH: self.settings.speeches,
            StageRoute.CHAT: self.settings.chats,
        }[route]
        if self._running[route] >= most:
            return RequestRefusal(503, f"This host serves {most} requests of this kind at a time.")
        if key and self._by_key[key] >= self.settings.per_key:
            return RequestRefusal(429, f"This key has {self.settings.per_key} running requests.")
        self._running[route] += 1
        self._by_key[key] += 1
        return None

    def leave(self, route: StageRoute, key: str) -> None:
        """Count the end of a request."""
        self._running[route] -= 1
        self._by_key[key] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
