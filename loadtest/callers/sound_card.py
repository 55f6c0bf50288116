"""The machine's microphone and loudspeaker, through PortAudio (https://python-sounddevice.readthedocs.io)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import ConfigError

FRAME_SAMPLES = WIRE_RATE * FRAME_MS // 1000
QUEUED_FRAMES = 250
"""Maximum number of microphone frames that wait to be sent: 5 s. The oldest frame is dropped when one more arrives."""


class SoundCard(Protocol):
    """A microphone and a loudspeaker for 24 kHz mono 16-bit PCM.

    Attributes:
        output_latency_s: Time from a sample's delivery to the sound card until it is audible, in seconds.
    """

    output_latency_s: float

    async def record(self) -> bytes:
        """Wait for the next 20 ms of the microphone and return them."""

    def play(self, pcm: bytes) -> None:
        """Queue audio behind the audio that is not played yet."""

    def stop(self) -> None:
        """Drop the audio that is not played yet."""


class PlaybackBuffer:
    """Audio that waits to be played. The sound card reads it in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pcm = bytearray()

    def put(self, pcm: bytes) -> None:
        """Append audio."""
        with self._lock:
            self._pcm += pcm

    def clear(self) -> None:
        """Drop all audio."""
        with self._lock:
            self._pcm.clear()

    def read(self, size: int) -> bytes:
        """Remove and return the next `size` bytes. Missing bytes are zero, which is silence."""
        with self._lock:
            pcm = bytes(self._pcm[:size])
            del self._pcm[:size]
        return pcm.ljust(size, b"\0")


class PortAudioCard:
    """A `SoundCard` on PortAudio streams that are open. Make one with `open_sound_card`."""

    def __init__(self) -> None:
        self.output_latency_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._frames: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_FRAMES)
        self._playback = PlaybackBuffer()

    async def record(self) -> bytes:
        """Wait for the next 20 ms of the microphone and return them."""
        return await self._frames.get()

    def play(self, pcm: bytes) -> None:
        """Queue audio behind the audio that is not played yet."""
        self._playback.put(pcm)

    def stop(self) -> None:
        """Drop the audio that is not played yet."""
        self._playback.clear()

    def on_input(self, pcm: Any, *_: object) -> None:
        """Take a block from PortAudio's input thread. `pcm` is a buffer of 16-bit samples, valid during the call."""
        self._loop.call_soon_threadsafe(self._enqueue, bytes(pcm))

    def on_output(self, out: Any, *_: object) -> None:
        """Fill a block for PortAudio's output thread. `out` is a writable buffer of 16-bit samples."""
        out[:] = self._playback.read(len(out))

    def _enqueue(self, frame: bytes) -> None:
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)


@contextmanager
def open_sound_card(microphone: bool = True) -> Iterator[PortAudioCard]:
    """Open the default loudspeaker and, unless `microphone` is False, the default microphone. Close them at the end.

    Call it inside a running event loop.

    Raises:
        ConfigError: The package sounddevice, the PortAudio library or a sound device is missing.
    """
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise ConfigError(
            "the package sounddevice is missing.", "Run `pip install -e '.[chat]'` in the checkout.", "chat"
        ) from None
    except OSError:
        raise ConfigError(
            "the PortAudio library is missing.", "Install it: apt-get install libportaudio2", "chat"
        ) from None
    card = PortAudioCard()
    form = {"samplerate": WIRE_RATE, "channels": 1, "dtype": "int16", "blocksize": FRAME_SAMPLES, "latency": "low"}
    try:
        output = sounddevice.RawOutputStream(callback=card.on_output, **form)
        inputs = [sounddevice.RawInputStream(callback=card.on_input, **form)] if microphone else []
    except sounddevice.PortAudioError as error:
        missing = "microphone or loudspeaker" if microphone else "loudspeaker"
        raise ConfigError(
            f"no {missing} can be opened ({error}).",
            "Connect one that is the system's default, or use --typed --mute.",
            "chat",
        ) from None
    card.output_latency_s = float(output.latency) + FRAME_SAMPLES / WIRE_RATE
    streams = (output, *inputs)
    try:
        for stream in streams:
            stream.start()
        yield card
    finally:
        for stream in streams:
            stream.close()
