"""What a client keeps so that its conversation can continue on another connection.

The server gives each session a token. If the connection breaks, the client connects again with the token and says how
much of the last reply it has. The server has no audio of the caller, so the client also sends again what the server had
not yet taken into the conversation. `reconnect` makes the attempts. The connections themselves belong to `call_socket`
and `openai_caller`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any, ClassVar, TypeVar

from loadtest.scenario.utterances import FRAME_S

Connection = TypeVar("Connection")

RESUMED = "rejoinder.session.resumed"
"""Type of the event that tells a client that its conversation continues."""

MOVE = "rejoinder.session.move"
"""Type of the event with which a host that is about to stop asks a client to connect again."""

ELSEWHERE = 4409
"""Close code of a connection whose conversation continues on a newer connection of the same client."""

GIVE_UP_S = 30.0
"""Time after the loss of a connection, in seconds, after which a client stops trying to continue its conversation."""

KEPT_FRAMES = 3000
"""Number of the newest frames that are kept to be sent again: one minute of audio."""

LEAD_IN_FRAMES = 25
"""Number of frames before a detected start of speech that are sent again with it: half a second, because the detector
reports the start of speech late."""

QUIET_FRAMES = 50
"""Number of the newest frames that are sent again if no speech was detected in them: one second, because the detector
may not have reported speech yet that had begun."""

KEPT_UTTERANCES = 8
"""Number of the newest utterances whose place in the caller's audio is kept."""


def pause_s(attempt: int, draw: float) -> float:
    """Return the seconds to wait before an attempt to connect again.

    The first attempts follow each other within a quarter of a second. Later pauses double up to 2 s. They are random,
    so that the callers of a dead host do not all return at the same moment.

    Args:
        attempt: Number of the attempt, from 0.
        draw: Random number from 0 to 1.
    """
    return draw * min(2.0, 0.05 * 2.0**attempt)


class SessionGone(Exception):
    """A server does not know the session, or rejects its token. Other attempts would get the same answer."""


GONE_STATUSES = (401, 403, 404)
"""HTTP statuses of a refused connection that mean `SessionGone`."""


async def reconnect(
    connect: Callable[[str], Awaitable[Connection]], urls: Sequence[str], *, over: Callable[[], bool]
) -> Connection | None:
    """Connect a session again. Return the new connection, or None if the session cannot continue.

    The attempts go to all servers in turn. They end when a server does not know the session, after `GIVE_UP_S`, or when
    the caller hangs up.

    Args:
        connect: Makes one attempt at a URL and returns the connection on which the session continues. It raises
            SessionGone to end the attempts, and ConnectionError or TimeoutError to go on with the next server.
        urls: OpenAI base URLs of the servers.
        over: Returns True once the caller has hung up.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + GIVE_UP_S
    for attempt, url in zip(count(), cycle(urls), strict=False):
        await asyncio.sleep(pause_s(attempt, random.random()))
        if over() or clock() > until:
            return None
        try:
            return await connect(url)
        except SessionGone:
            return None
        except (ConnectionError, TimeoutError):
            pass  # the next server may continue it
    raise AssertionError("the attempts are endless")


@dataclass(frozen=True, slots=True)
class Position:
    """How much of a reply a client has.

    Attributes:
        item_id: Conversation item of the reply.
        ms: Audio that was played, or that is left to play on the client's side, in milliseconds.
    """

    item_id: str
    ms: int

    @classmethod
    def at(cls, item_id: str, position_s: float, item_from_s: float) -> Position:
        """Return a position in a reply as a position in one of its items.

        Args:
            item_id: The item.
            position_s: Position in the audio of the reply, in seconds.
            item_from_s: Where the item's audio starts in that of the reply, in seconds.
        """
        return cls(item_id, max(0, round((position_s - item_from_s) * 1000)))


@dataclass(frozen=True, slots=True)
class _Utterance:
    """Place of an utterance in the caller's audio: numbers of its first frame and of the frame after its last one."""

    start: int
    end: int


_NOTHING = _Utterance(0, 0)


class ResumeState:
    """State of one caller that survives the loss of the connection. It holds audio messages, but does not decode them.

    Call `sent` for every frame and `take` for every server event, on each connection.

    Attributes:
        token: Token of the session, or None if the server does not offer to continue it.
    """

    def __init__(self) -> None:
        self.token: str | None = None
        self._first_frame = 0
        self._frames: deque[bytes] = deque(maxlen=KEPT_FRAMES)
        self._count = 0
        self._speech_from: int | None = None
        self._cleared_at = 0
        self._stopped: dict[str, _Utterance] = {}
        self._committed: dict[str, _Utterance] = {}

    def sent(self, message: bytes) -> None:
        """Keep one frame of audio: a message of 20 ms that was sent, or that was due while there was no connection."""
        self._frames.append(message)
        self._count += 1

    def take(self, event: dict[str, Any]) -> None:
        """Note what a server event says about the token and the caller's speech.

        The server's positions in the audio start again on each connection. This method changes those of `event`, so
        that they count from the caller's first frame.
        """
        shift_ms = self._first_frame * FRAME_S * 1000
        for holder, name in (
            (event, "audio_start_ms"),
            (event, "audio_end_ms"),
            (event.get("rejoinder"), "speech_end_ms"),
        ):
            if shift_ms and isinstance(holder, dict) and isinstance(holder.get(name), int | float):
                holder[name] += shift_ms
        handler = self._HANDLERS.get(event.get("type", ""))
        if handler:
            handler(self, event)

    def query(self, position: Position | None) -> dict[str, str]:
        """Return the query parameters with which the client connects again.

        Args:
            position: How much of the last reply the client has. None if it has none of one.
        """
        heard = {} if position is None or not position.item_id else {"heard": f"{position.item_id}:{position.ms}"}
        return {"resume_token": self.token or "", **heard}

    def resend(self, event: Mapping[str, Any]) -> list[bytes]:
        """Return the frames to send again at the start of a connection, oldest first. They start its audio.

        These are the frames since the start of the first utterance that the conversation does not have. If no speech
        was detected since its last utterance, they are the newest second.

        Args:
            event: The event `rejoinder.session.resumed`.
        """
        known = self._committed.get(event.get("audio_after_item_id") or "", _NOTHING)
        unknown = [utterance.start for utterance in self._committed.values() if utterance.end > known.end]
        speech = [start for start in (*unknown, self._speech_from) if start is not None]
        start = min(self._count - QUIET_FRAMES, *(start - LEAD_IN_FRAMES for start in speech), self._count)
        start = max(start, known.end, self._cleared_at, self._count - len(self._frames))
        self._first_frame = start
        self._committed = {item: known for item, kept in self._committed.items() if kept is known}
        return list(self._frames)[start - self._count + len(self._frames) :]

    # -- events ----------------------------------------------------------------------------------------------------

    def _on_created(self, event: Mapping[str, Any]) -> None:
        extra = event.get("rejoinder")
        token = extra.get("resume_token") if isinstance(extra, Mapping) else None
        self.token = token if isinstance(token, str) else self.token

    def _on_speech_started(self, event: Mapping[str, Any]) -> None:
        self._speech_from = self._frame(event.get("audio_start_ms"))

    def _on_speech_stopped(self, event: Mapping[str, Any]) -> None:
        end = self._frame(event.get("audio_end_ms"))
        start = end if self._speech_from is None else self._speech_from
        self._stopped = {str(event.get("item_id")): _Utterance(start, end)}

    def _on_committed(self, event: Mapping[str, Any]) -> None:
        item, start = str(event.get("item_id")), self._speech_from
        whole = _Utterance(self._count if start is None else start, self._count)
        self._committed[item] = self._stopped.get(item, whole)
        self._speech_from, self._stopped = None, {}
        while len(self._committed) > KEPT_UTTERANCES:
            del self._committed[next(iter(self._committed))]

    def _on_cleared(self, event: Mapping[str, Any]) -> None:
        """Note that the server has dropped the audio so far: the client asked for it, or the speech was noise."""
        self._speech_from, self._stopped = None, {}
        self._cleared_at = self._count

    def _frame(self, stream_ms: object) -> int:
        """Return the number of the frame at a position of the caller's audio, at most the number of frames sent."""
        position_ms = stream_ms if isinstance(stream_ms, int | float) else 0
        return min(self._count, round(position_ms / 1000 / FRAME_S))

    _HANDLERS: ClassVar[dict[str, Callable[[ResumeState, Mapping[str, Any]], None]]] = {
        "session.created": _on_created,
        "input_audio_buffer.speech_started": _on_speech_started,
        "input_audio_buffer.speech_stopped": _on_speech_stopped,
        "input_audio_buffer.committed": _on_committed,
        "input_audio_buffer.cleared": _on_cleared,
    }
