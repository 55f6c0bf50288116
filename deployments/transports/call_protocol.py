"""uvicorn's WebSocket connection, changed in two ways that calls need.

Calls survive a drain. To drain a host, Serve closes its listener, so that HAProxy sends new calls to other hosts, and
waits for the requests in progress. It closes the listener by stopping uvicorn, and uvicorn then closes every WebSocket
(code 1012). So a host that autoscaling removed lost all its calls. `CallProtocol` ignores the stop: a call ends by
itself, at the latest when Serve's `graceful_shutdown_timeout_s` is over.

Audio takes a fast path. A call sends fifty messages a second. On uvicorn's path each message pauses and resumes
reading, and passes through a queue, a task and a queue of Serve, and starlette. `CallProtocol` offers a short,
unfragmented text frame directly to the call as soon as it is read. A frame that the call declines takes uvicorn's path,
and so does every frame that arrives while an earlier message is unanswered. So the order of messages never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.config import Config

from deployments.serving.compat import UvicornWebSocket, apply_mask, use_websocket_protocol

EXTENSION = "rejoinder.audio"
"""Key of the connection's `CallProtocol` in the `extensions` of its ASGI scope."""

# Longest frame of the fast path, header included: one second of 24 kHz PCM in base64 and JSON. A frame of the fast path
# is buffered until it is complete, which would cost too much for longer frames.
SHORT_BYTES = 65_536

# Bits of a frame header (RFC 6455, section 5.2): the first byte has FIN and the opcode, the second MASK and the payload
# length. _WHOLE_TEXT is the first byte of an unfragmented text frame.
_WHOLE_TEXT = 0x81
_FIN, _CONTROL = 0x80, 0x08
_MASKED, _LENGTH = 0x80, 0x7F
_HANDSHAKE_END = b"\r\n\r\n"


def install() -> None:
    """Use `CallProtocol` in every uvicorn server of this process that is started later with `ws="auto"`."""
    use_websocket_protocol(CallProtocol)


class CallProtocol(UvicornWebSocket):
    """One WebSocket connection with a fast path for audio.

    The application finds it in its ASGI scope under EXTENSION and then calls `attend`.
    """

    def __init__(self, config: Config, *args: Any, **more: Any) -> None:
        # Common clients offer compression. Refuse it: decompressing a message costs more than all its other processing.
        config.ws_per_message_deflate = False
        super().__init__(config, *args, **more)
        self._take: Callable[[bytes], bool] | None = None
        self._unanswered = 0
        self._in_message = False
        self._incomplete = b""
        # Bytes still to come of a frame that takes uvicorn's path. None if the client sent data before it was
        # accepted: the position of the next frame is unknown, so all data takes uvicorn's path.
        self._passing: int | None = 0

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

    # -- methods that uvicorn calls --------------------------------------------------------------------------------

    def on_upgrade(self, extensions: dict[str, Any]) -> None:
        """Put this connection into `extensions` of the ASGI scope, under EXTENSION, where the application finds it."""
        extensions[EXTENSION] = self

    def on_message(self) -> None:
        """Count a message for uvicorn's path. The fast path is closed until the application calls `answered` for it."""
        self._unanswered += 1

    def data_received(self, data: bytes) -> None:
        """Split the client's data: short frames take the fast path to the application, other data goes to uvicorn."""
        if self.failed:
            return
        if not self.handshake_answered:
            if self.upgrade_requested or not data.endswith(_HANDSHAKE_END):
                self._passing = None
            super().data_received(data)
        elif self._passing is None:
            super().data_received(data)
        else:
            self._read(self._incomplete + data if self._incomplete else data, self._passing)

    def _read(self, data: bytes, passing: int) -> None:
        """Offer each complete short frame in `data` to the application, and pass all other data to uvicorn.

        An incomplete short frame at the end is kept until more data arrives. The first `passing` bytes belong to a
        frame that takes uvicorn's path.
        """
        at, end = 0, len(data)
        while at < end:
            if self.failed:
                return
            if passing:
                step = min(passing, end - at)
                super().data_received(data[at : at + step])
                at, passing = at + step, passing - step
                continue
            header = _header_bytes(data, at)
            if not header:
                break
            stop = at + header + _payload_bytes(data, at)
            if data[at] == _WHOLE_TEXT and data[at + 1] & _MASKED and stop - at <= SHORT_BYTES:
                if stop > end:
                    break
                if self._offered(data, at + header, stop):
                    at = stop
                    continue
            elif not data[at] & _CONTROL:
                self._in_message = not data[at] & _FIN
            passing = stop - at
        self._passing = passing
        self._incomplete = data[at:]

    def _offered(self, data: bytes, body: int, stop: int) -> bool:
        """Unmask the payload `data[body:stop]` and offer it to the application. Return True if it was consumed.

        Return False while the fast path is closed.
        """
        if self._take is None or self._unanswered or self._in_message or self.closing:
            return False
        return self._take(apply_mask(data[body:stop], data[body - 4 : body]))


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
