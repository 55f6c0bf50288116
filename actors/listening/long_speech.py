"""Long speech: transcribe the beginning of an utterance while it still continues, window by window.

A recognizer takes at most 30 s. Speech of more than SPLIT_S (18 s) is cut into windows, and a finished window is
transcribed at once. At the end of the turn only the rest of the speech has to be transcribed, so a turn of two minutes
is answered as soon as a short one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from actors.listening.audio_input import AudioInput
from actors.stages.ports import Transcript
from rejoinder.core.audio.windows import SPLIT_SAMPLES, cut_window


@dataclass(frozen=True, slots=True)
class SpeechWindow:
    """A finished window of an utterance.

    Attributes:
        transcript: Future of its transcript. It raises BackendError if all attempts at speech-to-text failed.
        overlaps: True if the next window begins before the end of this one.
    """

    transcript: asyncio.Future[Transcript]
    overlaps: bool


class LongSpeech:
    """The windows of one session's utterance.

    Attributes:
        active: True from `begin` to `end` or `cancel`.
        rest: First sample of the audio that is in no window yet.
        windows: The finished windows, in order.
    """

    def __init__(
        self, audio_input: AudioInput, transcribe_window: Callable[[bytes], asyncio.Future[Transcript]]
    ) -> None:
        """Create it; `transcribe_window` starts the transcription of 16-bit PCM at 16 kHz."""
        self.active = False
        self.rest = 0
        self.windows: tuple[SpeechWindow, ...] = ()
        self._audio_input = audio_input
        self._transcribe_window = transcribe_window

    def begin(self, start: int) -> None:
        """Start the utterance at sample `start`. Its audio is kept until it is in a window or the utterance ends."""
        self.active = True
        self.windows = ()
        self._move(start)

    def advance(self, end: int) -> None:
        """Transcribe every window that is complete within the audio before sample `end`."""
        while self.active and end - self.rest >= SPLIT_SAMPLES:
            pcm = self._audio_input.pcm(self.rest, self.rest + SPLIT_SAMPLES)
            cut = cut_window(pcm)
            if cut is None:  # some of the audio was dropped, because more arrived at once than is kept
                return
            window = self._transcribe_window(self._audio_input.pcm(self.rest, self.rest + cut.end))
            self.windows += (SpeechWindow(window, cut.overlaps),)
            self._move(self.rest + cut.next_start)

    def _move(self, rest: int) -> None:
        self.rest = rest
        self._audio_input.hold(rest)

    def end(self) -> None:
        """Forget the utterance, because it became a turn. Its transcriptions continue."""
        self.active = False
        self.windows = ()
        self._audio_input.hold(None)

    def cancel(self) -> None:
        """Forget the utterance, because it becomes no turn, and cancel its transcriptions."""
        for window in self.windows:
            window.transcript.cancel()
        self.end()
