"""uvicorn's WebSocket connection, changed in three ways that calls need.

Calls survive a drain. To drain a host, Serve closes its listener, so that HAProxy sends new calls to other hosts, and
waits for the requests in progress. It closes the listener by stopping uvicorn, and uvicorn then closes every WebSocket
(code 1012). So a host that autoscaling removed lost all its calls. `CallProtocol` ignores the stop: a call ends by
itself, at the latest when Serve's `graceful_shutdown_timeout_s` is over.

Audio takes a fast path. A call sends fifty messages a second. On uvicorn's path each message pauses and resumes
reading, and passes through a queue, a task and a queue of Serve, and starlette. `CallProtocol` offers a short,
unfragmented text frame directly to the call as soon as it is read. A frame that the call declines takes uvicorn's path,
and so does every frame that arrives while an earlier message is unanswered. So the order of messages never changes.

A client is limited. `FrameGuard` decides about each frame when its header is read: a message that is too large is
refused before it is received, and a client that sends too fast is not read until it may send again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.config import Config

from deployments.serving.compat import UvicornWebSocket, apply_mask, use_websocket_protocol
from rejoinder.core.access.frame_guard import PEEK_BYTES, FrameGuard, shared_rate
from rejoinder.core.access.stored_bytes import StoredBytes
from rejoinder.core.access.token_bucket import TokenBucket
from rejoinder.core.settings.access.limits import LimitSettings
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import refuse

EXTENSION = "rejoinder.audio"
"""Key of the connection's `CallProtocol` in the `extensions` of its ASGI scope."""

# Longest frame of the fast path, header included: one second of 24 kHz PCM in base64 and JSON. A frame of the fast path
# is buffered until it is complete, which would cost too much for longer frames.
SHORT_BYTES = 65_536

# Seconds between two pings, from which the round trip to the client is measured.
PING_EVERY_S = 5.0

# Bits of a frame header (RFC 6455, section 5.2): the first byte has FIN and the opcode, the second MASK and the payload
# length. _WHOLE_TEXT is the first byte of an unfragmented text frame.
_WHOLE_TEXT = 0x81
_FIN, _CONTROL = 0x80, 0x08
_MASKED, _LENGTH = 0x80, 0x7F
# Opcode of a frame that continues a message.
_CONTINUATION, _OPCODE = 0x00, 0x0F
_HANDSHAKE_END = b"\r\n\r\n"

CLOSE_POLICY = 1008
CLOSE_TOO_LARGE = 1009
CLOSE_TRY_LATER = 1013


def install(limits: LimitSettings | None = None, stored: StoredBytes | None = None) -> TokenBucket:
    """Use `CallProtocol` in every uvicorn server of this process that is started later with `ws="auto"`.

    Args:
        limits: Limits of each connection; None for the default ones.
        stored: Bytes that all clients of this process make it keep; None if nothing is counted.

    Returns:
        The rate of large messages that all these connections share.
    """
    limits = limits or LimitSettings()
    shared = shared_rate(limits)
    use_websocket_protocol(partial(CallProtocol, limits=limits, stored=stored, shared=shared))
    return shared


class CallProtocol(UvicornWebSocket):
    """One WebSocket connection with a fast path for audio, and with limits on what the client sends.

    The application finds it in its ASGI scope under EXTENSION and then calls `attend`.
    """

    def __init__(
        self,
        config: Config,
        *args: Any,
        limits: LimitSettings | None = None,
        stored: StoredBytes | None = None,
        shared: TokenBucket | None = None,
        **more: Any,
    ) -> None:
        # Common clients offer compression. Refuse it: decompressing a message costs more than all its other processing.
        config.ws_per_message_deflate = False
        limits = limits or LimitSettings()
        config.ws_max_size = limits.audio_message_bytes
        config.ws_ping_interval = PING_EVERY_S
        super().__init__(config, *args, **more)
        self._take: Callable[[bytes], bool] | None = None
        self._act_on_stop: Callable[[], None] | None = None
        self._note_round_trip: Callable[[float], None] | None = None
        self._guard = FrameGuard(limits, shared)
        self._unanswered = 0
        self._in_message = False
        # Data that is not processed yet: an incomplete frame, what arrived before the handshake was answered, or what
        # came too fast.
        self._incomplete = b""
        self._slowed = False
        # Bytes still to come of a frame that takes uvicorn's path, and whether it belongs to a message.
        self._passing = 0
        self._passing_message = False
        # Bytes of the message that arrives, and of complete ones that wait for the application.
        self._stored = stored or StoredBytes(sys.maxsize)
        self._arriving = self._waiting = 0

    # -- methods that the application calls ------------------------------------------------------------------------

    def attend(self, take: Callable[[bytes], bool] | None) -> None:
        """Offer short text messages to a function before they take uvicorn's path.

        Args:
            take: Function that gets a message and returns True if it has consumed the message. None turns the fast path
                off.
        """
        self._take = take

    def answered(self) -> None:
        """Record that the application has finished with one message from uvicorn's path.

        The fast path stays closed until all these messages are finished, so that messages keep their order.
        """
        self._unanswered -= 1
        if not self._unanswered:
            self._stored.release(self._waiting)
            self._waiting = 0

    def charge(self, size: int) -> None:
        """Count an event of `size` bytes that answers the client. Large answers slow the client down."""
        self._guard.answered(self.loop.time(), size)

    def when_stopped(self, act: Callable[[], None] | None) -> None:
        """Call `act` when uvicorn stops because Serve drains the host; None to call nothing."""
        self._act_on_stop = act

    def when_pinged(self, act: Callable[[float], None] | None) -> None:
        """Call `act` with the round-trip time in seconds when the client has answered a ping; None to call nothing.

        The proxy in front passes pings on, so the time is that to the client and back.
        """
        self._note_round_trip = act

    # -- methods that uvicorn calls --------------------------------------------------------------------------------

    def on_upgrade(self, extensions: dict[str, Any]) -> None:
        """Put this connection into `extensions` of the ASGI scope, under EXTENSION, where the application finds it."""
        extensions[EXTENSION] = self

    def on_answered(self) -> None:
        """Process what the client has sent before the handshake was answered."""
        if not self.closing:
            self._continue()

    def on_stop(self) -> None:
        """Tell the application that the host is being drained."""
        if self._act_on_stop:
            self._act_on_stop()

    def on_round_trip(self, seconds: float) -> None:
        """Tell the application that the client has answered a ping after `seconds`."""
        if self._note_round_trip:
            self._note_round_trip(seconds)

    def on_message(self) -> None:
        """Count a message for uvicorn's path. The fast path is closed until the application calls `answered` for it."""
        self._unanswered += 1
        self._waiting += self._arriving
        self._arriving = 0

    def on_lost(self) -> None:
        """Give back the memory that the client's unfinished messages were counted for."""
        self._stored.release(self._arriving + self._waiting)
        self._arriving = self._waiting = 0

    def data_received(self, data: bytes) -> None:
        """Split the client's data: short frames take the fast path to the application, other data goes to uvicorn."""
        if self.failed:
            return
        if self.handshake_answered and not self._slowed:
            self._read(self._incomplete + data if self._incomplete else data)
        elif self.upgrade_requested:
            # Keep what the client sends before it may. uvicorn resumes reading when its queue is empty.
            self._incomplete += data
            if len(self._incomplete) > SHORT_BYTES:
                self.transport.pause_reading()
        else:
            head, end, rest = data.partition(_HANDSHAKE_END)
            self._incomplete = rest
            super().data_received(head + end)

    def _read(self, data: bytes) -> None:
        """Offer each complete short frame in `data` to the application, and pass all other data to uvicorn.

        An incomplete short frame at the end is kept until more data arrives. The first `_passing` bytes belong to a
        frame that takes uvicorn's path.
        """
        at, end, now = 0, len(data), self.loop.time()
        self._incomplete = b""
        while at < end and not self.failed:
            if self._passing:
                step = min(self._passing, end - at)
                self._passing -= step
                if self._passing_message and not self._hold(step):
                    self.refuse(CLOSE_TRY_LATER, "the memory of this host for its clients is full")
                    return
                super().data_received(data[at : at + step])
                at += step
                continue
            header = _header_bytes(data, at)
            if not header:
                break
            body = at + header
            stop = body + _payload_bytes(data, at)
            if data[at] & _CONTROL:
                if not self._guard.control(now):
                    self.refuse(CLOSE_POLICY, "too many pings or other control frames")
                    return
            elif self._must_wait(data, at, body, stop):
                break
            elif wait_s := self._guard.wait_s(now):
                self._slow_down(wait_s)
                break
            elif self._consumed(data, at, body, stop, now=now):
                at = stop
                continue
            if not self.failed:
                self._passing = stop - at
                self._passing_message = not data[at] & _CONTROL
        self._incomplete = data[at:]

    def _must_wait(self, data: bytes, at: int, body: int, stop: int) -> bool:
        """Return True if more of the frame `data[at:stop]`, whose payload begins at `body`, must arrive first.

        A short frame is buffered until it is complete. Of a frame that only audio may be, the beginning is needed.
        """
        if _is_short(data, at, stop):
            return stop > len(data)
        payload, first = stop - body, data[at] & _OPCODE != _CONTINUATION
        return self._guard.needs_peek(payload, first=first) and len(data) - body < PEEK_BYTES

    def _consumed(self, data: bytes, at: int, body: int, stop: int, *, now: float) -> bool:
        """Count the frame `data[at:stop]`, whose payload begins at `body`. Return True if the application consumed it.

        Otherwise it takes uvicorn's path, or is too large: then the connection has failed.
        """
        payload = stop - body
        if _is_short(data, at, stop) and self._offered(data, body, stop):
            self._guard.admit_audio(now, payload)
            return True
        first = data[at] & _OPCODE != _CONTINUATION
        beginning = b""
        if self._guard.needs_peek(payload, first=first) and data[at + 1] & _MASKED:
            beginning = apply_mask(data[body : body + PEEK_BYTES], data[body - 4 : body])
        if refusal := self._guard.admit(now, payload, first=first, beginning=beginning):
            self.refuse(CLOSE_TOO_LARGE, refusal, _error_text(refusal))
            return False
        self._in_message = not data[at] & _FIN
        return False

    def _hold(self, size: int) -> bool:
        """Count `size` bytes of a message that arrives and return True. Return False if the host has no room."""
        if not self._stored.take(size):
            return False
        self._arriving += size
        return True

    def _slow_down(self, wait_s: float) -> None:
        """Read nothing from the client for `wait_s` seconds, because it sends faster than it may."""
        self._slowed = True
        self.transport.pause_reading()
        self.loop.call_later(wait_s, self._continue)

    def _continue(self) -> None:
        self._slowed = False
        if self.failed or self.transport.is_closing():
            return
        if not self.read_paused:
            self.transport.resume_reading()
        self._read(self._incomplete)

    def _offered(self, data: bytes, body: int, stop: int) -> bool:
        """Unmask the payload `data[body:stop]` and offer it to the application. Return True if it was consumed.

        Return False while the fast path is closed.
        """
        if self._take is None or self._unanswered or self._in_message or self.closing:
            return False
        return self._take(apply_mask(data[body:stop], data[body - 4 : body]))


def _error_text(reason: str) -> str:
    """Return the error event for a message that is too large, as JSON. `reason` names the limit."""
    fault = refuse(f"The message is too large: {reason}.", "", code="message_too_large", remedy="Send it in parts.")
    return json.dumps({"event_id": "event_too_large"} | server.error(fault, None))


def _is_short(data: bytes, at: int, stop: int) -> bool:
    """Return True if the frame `data[at:stop]` is a masked, unfragmented text frame of at most SHORT_BYTES."""
    return data[at] == _WHOLE_TEXT and data[at + 1] & _MASKED != 0 and stop - at <= SHORT_BYTES


def _header_bytes(data: bytes, at: int) -> int:
    """Return the size in bytes of the frame header at offset `at`, 0 if the header is incomplete.

    The header of an unmasked frame has no mask. uvicorn refuses such a frame from a client.
    """
    if len(data) - at < 2:
        return 0
    short = data[at + 1] & _LENGTH
    size = 2 + (0 if short < 126 else 2 if short == 126 else 8) + (4 if data[at + 1] & _MASKED else 0)
    return size if len(data) - at >= size else 0


def _payload_bytes(data: bytes, at: int) -> int:
    """Return the payload size in bytes of the frame whose complete header is at offset `at`."""
    short = data[at + 1] & _LENGTH
    if short < 126:
        return short
    return int.from_bytes(data[at + 2 : at + (4 if short == 126 else 10)])
