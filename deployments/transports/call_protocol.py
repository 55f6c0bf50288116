"""uvicorn's WebSocket, as calls need it: they outlive the listener, and their audio takes a short way.

A host that drains. Serve closes the listener of a host that leaves, so that HAProxy takes new calls to others, and
then waits for the requests under way. It closes it by stopping uvicorn, and uvicorn, when it stops, hangs up every
WebSocket at once (close code 1012): a host that autoscaling removed lost all its calls (Ray Serve 2.60, uvicorn 0.54).
So a call ignores uvicorn's wish. It ends by itself, and at the latest when Serve's `graceful_shutdown_timeout_s` is
over.

Fifty messages a second. To the application a message passes uvicorn's frame parser, which stops and starts reading for
each, a queue, a task of Serve's with a queue of its own, and starlette. Audio needs none of it: a whole, small,
unfragmented text frame is offered to the call itself as soon as it is read. What the call does not take, and all that
comes while an earlier message is not answered yet, goes the long way, so nothing overtakes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets import auto
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.speedups import apply_mask

EXTENSION = "rejoinder.audio"
"""In an ASGI scope's `extensions`: the `CallProtocol` of the connection."""

# A second of PCM in base64 and JSON; what is longer is not worth waiting for in one piece.
SHORT_BYTES = 65_536

# How long a refused client may take to read why, and to close.
LINGER_S = 1.0

_PROTOCOL_ERROR = 1002
_WHOLE_TEXT = 0x81
_FIN, _CONTROL = 0x80, 0x08
_MASKED, _LENGTH = 0x80, 0x7F
_HANDSHAKE_END = b"\r\n\r\n"


def install() -> None:
    """From now on every server of this process that leaves the choice to uvicorn speaks WebSocket by `CallProtocol`."""
    auto.AutoWebSocketsProtocol = CallProtocol


class CallProtocol(WebSocketsSansIOProtocol):
    """One connection. The application finds it in its scope, and then hears by `attend`."""

    def __init__(self, config: Config, *args: Any, **more: Any) -> None:
        # Stock clients offer to compress; to inflate a message costs more than all else about it.
        config.ws_per_message_deflate = False
        super().__init__(config, *args, **more)
        self._take: Callable[[bytes], bool] | None = None
        self._unanswered = 0
        self._in_message = False
        self._deaf = False
        self._rest = b""
        # Bytes still to come of a frame that goes the long way; None if all goes that way: a client that speaks before
        # it was accepted leaves us in the middle of a frame.
        self._passing: int | None = 0

    # -- the application's side ------------------------------------------------------------------------------------

    def attend(self, take: Callable[[bytes], bool] | None) -> None:
        """Offer short text messages to `take` first; it returns whether it took this one. None: no longer."""
        self._take = take

    def answered(self) -> None:
        """The application has done all that one message of `receive` asked for."""
        self._unanswered -= 1

    # -- uvicorn's side --------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Serve waits for the requests under way, of which an open call is one."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    def handle_parser_exception(self) -> None:
        """Say why, and read on unheard for a moment: to close on unread audio resets the connection, and the reason is
        lost on its way.
        """
        reason = self.conn.close_sent
        code = reason.code if reason else _PROTOCOL_ERROR
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason.reason if reason else ""})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._deaf = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def send_receive_event_to_app(self) -> None:
        self._unanswered += 1
        super().send_receive_event_to_app()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if not self.handshake_complete:
            if self.handshake_initiated or not data.endswith(_HANDSHAKE_END):
                self._passing = None
            super().data_received(data)
        elif self._passing is None:
            super().data_received(data)
        else:
            self._read(self._rest + data if self._rest else data, self._passing)

    def _read(self, data: bytes, passing: int) -> None:
        """Whole frames that are short, and of all others as much as is there."""
        at, end = 0, len(data)
        while at < end:
            if self._deaf:
                return
            if passing:
                step = min(passing, end - at)
                super().data_received(data[at : at + step])
                at, passing = at + step, passing - step
                continue
            head = _head(data, at)
            if not head:
                break
            stop = at + head + _length(data, at)
            if data[at] == _WHOLE_TEXT and data[at + 1] & _MASKED and stop - at <= SHORT_BYTES:
                if stop > end:
                    break
                if self._offered(data, at + head, stop):
                    at = stop
                    continue
            elif not data[at] & _CONTROL:
                self._in_message = not data[at] & _FIN
            passing = stop - at
        self._passing = passing
        self._rest = data[at:]

    def _offered(self, data: bytes, body: int, stop: int) -> bool:
        if self._take is None or self._unanswered or self._in_message or self.close_sent:
            return False
        return self._take(apply_mask(data[body:stop], data[body - 4 : body]))


def _head(data: bytes, at: int) -> int:
    """The size of the header of the frame that begins there, 0 if it is not all there. A client's frame is masked;
    one that is not goes the long way, to be refused.
    """
    if len(data) - at < 2:
        return 0
    short = data[at + 1] & _LENGTH
    size = 2 + (0 if short < 126 else 2 if short == 126 else 8) + (4 if data[at + 1] & _MASKED else 0)
    return size if len(data) - at >= size else 0


def _length(data: bytes, at: int) -> int:
    """The size of what follows the header."""
    short = data[at + 1] & _LENGTH
    if short < 126:
        return short
    return int.from_bytes(data[at + 2 : at + (4 if short == 126 else 10)])
