"""Transcription of recordings that a client puts into an item of the conversation."""

from __future__ import annotations

from actors.listening.end_of_turn import EndOfTurn, EndOfTurnRequest
from actors.listening.long_speech import SpeechWindow
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.audio.windows import SPLIT_SAMPLES, cut_window
from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import refuse

MAX_CLIPS = 4
"""Recordings of one session that are transcribed at a time."""


class Clips:
    """The recordings of one session that are being transcribed."""

    def __init__(self, services: Services, end_of_turn: EndOfTurn) -> None:
        """Create it; `end_of_turn` starts the transcriptions."""
        self._services = services
        self._end_of_turn = end_of_turn
        self._pending = 0

    def refusal(self, pcm: bytes) -> CallerError | None:
        """Return why a recording (16-bit PCM at 16 kHz) cannot be transcribed now; None if it can."""
        longest_s = self._services.settings.host.max_buffered_audio_s
        if self._pending >= MAX_CLIPS:
            message, code = f"{MAX_CLIPS} recordings are being transcribed.", "rate_limit_exceeded"
            return refuse(message, "item.content", code=code, remedy="Wait for a transcript.")
        if len(pcm) > longest_s * STT_RATE * SAMPLE_BYTES:
            return refuse(f"A recording may have {longest_s:g} s.", "item.content", remedy="Send it in parts.")
        if not self._services.stored.room(len(pcm)):
            message = "The clients of this host take all the memory that they may."
            return refuse(message, "item.content", code="host_memory_full", remedy="Try again later.")
        return None

    def transcribe(self, pcm: bytes) -> EndOfTurnRequest:
        """Start to transcribe a recording of any length. The recognizer first looks for speech in it."""
        self._services.stored.take(len(pcm))
        self._pending += 1
        windows: tuple[SpeechWindow, ...] = ()
        rest = pcm
        while cut := cut_window(rest[: SPLIT_SAMPLES * SAMPLE_BYTES]):
            window = self._end_of_turn.transcribe_window(rest[: cut.end * SAMPLE_BYTES], False)
            windows += (SpeechWindow(window, cut.overlaps),)
            rest = rest[cut.next_start * SAMPLE_BYTES :]
        request = self._end_of_turn.start(rest, None, windows=windows, speech_detected=False)
        request.transcript.add_done_callback(lambda _: self._ended(len(pcm)))
        return request

    def _ended(self, size: int) -> None:
        self._services.stored.release(size)
        self._pending -= 1
