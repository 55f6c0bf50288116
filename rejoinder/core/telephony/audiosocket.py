"""Frames of Asterisk's AudioSocket (https://docs.asterisk.org/Configuration/Channel-Drivers/AudioSocket/).

A frame is a byte with its kind, two bytes with the length of its payload (big-endian), and the payload. Audio is signed
linear PCM with 16 bits at 8 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from rejoinder.core.wire.client import KEYS

HEADER_BYTES = 3
FRAME_BYTES = 320
"""Audio of 20 ms."""


class FrameKind(IntEnum):
    """Kinds of frames. Frames of other kinds, such as audio at other rates, are ignored."""

    HANG_UP = 0x00
    UUID = 0x01
    DTMF = 0x03
    AUDIO = 0x10
    ERROR = 0xFF


@dataclass(frozen=True, slots=True)
class SocketFrame:
    """One frame.

    Attributes:
        kind: Its kind, as a number: it may be none of FrameKind.
        payload: Its content.
    """

    kind: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the frame as bytes. The payload has at most 65,535 bytes."""
        return bytes([self.kind]) + len(self.payload).to_bytes(2, "big") + self.payload

    @property
    def digit(self) -> str:
        """The key that a DTMF frame names; "" if it names none."""
        text = self.payload.decode("ascii", errors="replace").upper()
        return text if text in KEYS else ""


HANG_UP = SocketFrame(FrameKind.HANG_UP).encode()


class FrameReader:
    """Splits the bytes of one connection into frames. It keeps at most one incomplete frame (64 kB)."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[SocketFrame]:
        """Return the frames that are complete with the next bytes."""
        self._data += data
        frames, at = [], 0
        while len(self._data) - at >= HEADER_BYTES:
            start = at + HEADER_BYTES
            end = start + int.from_bytes(self._data[at + 1 : start], "big")
            if end > len(self._data):
                break
            frames.append(SocketFrame(self._data[at], self._data[start:end]))
            at = end
        self._data = self._data[at:]
        return frames
