"""Limits of WebSocket connections on what they send: size of a message, messages, bytes and control frames a second.

A client that sends too fast is slowed down: its connection is not read until it may send again. So a client that sends
a recording faster than real time, or a long history, needs no code of its own. Only what no real client sends ends the
connection: messages that are too large, and floods of control frames.

All connections of a host also share a rate, because hundreds of connections at their own limits would keep the event
loop busy. Only connections that have sent more than a caller needs wait for it.
"""

from __future__ import annotations

import re

from rejoinder.core.access.token_bucket import TokenBucket
from rejoinder.core.settings.access.limits import LimitSettings

PEEK_BYTES = 1024
"""Bytes at the beginning of a large message that tell whether it is audio. The client's `event_id` may be among them.
"""
CREDIT = 25
"""Short audio messages that are counted together at most: half a second of a caller's."""
CREDIT_BYTES = 65_536
"""Bytes of short audio messages after which they are counted."""
OWN_BYTES, OWN_BYTES_PER_S = 131_072, 16_384
"""Bytes of messages without audio, and of their answers, that a connection may cause at once, and in a second, without
waiting for the rate that all connections share. A caller stays below both."""
_AUDIO_MARK = re.compile(rb'"input_audio_buffer\.append"|"audio"\s*:\s*"')


def shared_rate(limits: LimitSettings) -> TokenBucket:
    """Return the rate, in bytes, that all connections of a host share."""
    return TokenBucket(limits.host_message_bytes_per_s, limits.host_message_bytes_burst)


class FrameGuard:
    """Limits of one connection. Not thread-safe.

    Call `control` for each control frame (ping, pong, close), and `wait_s` before and `admit` after each data frame.
    """

    __slots__ = (
        *("_audio", "_controls", "_credit", "_frames", "_message_bytes", "_other", "_owed", "_read", "_size"),
        *("_own", "_shared", "audio", "limits"),
    )

    def __init__(self, limits: LimitSettings, shared: TokenBucket | None = None) -> None:
        """Create the limits of a new connection.

        Args:
            limits: The settings.
            shared: Bytes of messages without audio, and of their answers, of all connections of the host. None if it
                shares them with no other.
        """
        self.limits = limits
        self._shared = shared or shared_rate(limits)
        self.audio = False
        self._size = 0
        self._frames = TokenBucket(limits.messages_per_s, limits.message_burst)
        self._controls = TokenBucket(limits.control_frames_per_s, limits.control_frame_burst)
        self._other = TokenBucket(limits.message_bytes_per_s, limits.message_bytes_burst)
        self._own = TokenBucket(OWN_BYTES_PER_S, OWN_BYTES)
        self._audio = TokenBucket(limits.audio_bytes_per_s, limits.audio_bytes_burst)
        self._message_bytes = limits.message_bytes
        # Short audio messages are counted together, because fifty of them arrive a second: how many may be read before
        # they are counted, how many were read since, and their bytes.
        self._credit = self._read = self._owed = 0

    def control(self, now: float) -> bool:
        """Count a control frame at time `now`. Return False if the client sends more of them than it may."""
        return self._controls.take(now)

    def wait_s(self, now: float) -> float:
        """Return the seconds after `now` for which no data frame may be read; 0 if one may be read now."""
        if self._read < self._credit:
            return 0.0
        self._settle(now)
        wait_s = max(self._frames.wait_s(now, CREDIT), self._large_s(now), self._audio.wait_s(now, CREDIT_BYTES))
        if not wait_s:
            self._credit = CREDIT
            return 0.0
        return max(self._frames.wait_s(now, 1.0), self._large_s(now), self._audio.wait_s(now))

    def _large_s(self, now: float) -> float:
        """Return the seconds after `now` for which messages without audio have used up the rates."""
        return max(self._other.wait_s(now), min(self._own.wait_s(now), self._shared.wait_s(now)))

    def needs_peek(self, payload: int, *, first: bool) -> bool:
        """Return True if the size of a frame is only permitted for audio, so that its beginning must be read.

        Args:
            payload: Size of the frame's payload in bytes.
            first: True if the frame begins a message.
        """
        return first and payload > self._message_bytes

    def admit(self, now: float, payload: int, *, first: bool, beginning: bytes = b"") -> str:
        """Count a data frame. Return "" if its message has a permitted size, otherwise the reason for the close frame.

        Args:
            now: Time in seconds.
            payload: Size of the frame's payload in bytes.
            first: True if the frame begins a message, False if it continues one.
            beginning: The first PEEK_BYTES of the payload, needed only if `needs_peek` is True.
        """
        self._settle(now)
        if first:
            self._size = 0
            self.audio = payload > self._message_bytes and _AUDIO_MARK.search(beginning) is not None
        self._size += payload
        limit = self.limits.audio_message_bytes if self.audio else self._message_bytes
        if self._size > limit:
            kind = "an audio message" if self.audio else "a message without audio"
            return f"{kind} may have {limit} bytes"
        self._frames.spend(now, 1.0)
        if self.audio:
            self._audio.spend(now, payload)
        else:
            self._spend(now, payload)
        return ""

    def admit_audio(self, now: float, payload: int) -> None:
        """Count a short audio message, whose size needs no check."""
        self._read += 1
        self._owed += payload
        if self._read >= self._credit or self._owed >= CREDIT_BYTES:
            self._settle(now)

    def answered(self, now: float, size: int) -> None:
        """Count `size` bytes of an event that answers the client: a small message may cause a large answer."""
        self._settle(now)
        self._spend(now, size)

    def _spend(self, now: float, size: int) -> None:
        """Count bytes of a message without audio, or of an answer."""
        self._other.spend(now, size)
        self._own.spend(now, size)
        self._shared.spend(now, size)

    def _settle(self, now: float) -> None:
        """Count the short audio messages that were read since the last time, and end their credit.

        They are counted later than they arrived, which is never in the client's favour.
        """
        if self._read:
            self._frames.spend(now, self._read)
            self._audio.spend(now, self._owed)
            self._read = self._owed = 0
        self._credit = 0
