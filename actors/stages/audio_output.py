"""Protocol of what plays the audio of replies if the server does so in real time, as over WebRTC."""

from __future__ import annotations

from typing import Protocol


class AudioOutput(Protocol):
    """Player of the replies' audio on the server's side of a call. No method may block.

    What it has sent is heard. So it knows where a reply was interrupted, and the client reports nothing.
    """

    def play(self, response_id: str, pcm: bytes) -> None:
        """Append 16-bit PCM at 24 kHz of a response."""
        ...

    def end(self, response_id: str) -> None:
        """Record that the response has no more audio."""
        ...

    def stop(self, response_id: str | None) -> int:
        """Drop the audio of a response (None: of all) that was not sent. Return the number of samples (24 kHz)."""
        ...
