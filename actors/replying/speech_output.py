"""Speech output of a reply: synthesizes segments, sends the audio in time, and knows which text was heard.

Two loops share a bounded buffer. One synthesizes segments in order. The other sends audio at most `playout_lead_ms`
before the listener plays it. So little audio is sent in vain before a barge-in, and the history contains only what was
heard. A paused output sends nothing, and resumes after the last sample that was heard.

Ray does not slow down a stream that is read slowly. Only the limit of the buffer (`AHEAD_S`) stops synthesis from
running far ahead.

`Playout` estimates the listener's position in the audio, and `ReplayBuffer` stores the audio. `pause` and `flushed`
must move the positions of both.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from actors.stages.ports import TtsPort, TtsRequest
from actors.stages.retry import Attempt, StageFailures, attempts, idle_timeout
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.replay_buffer import ReplayBuffer, ReplayPiece
from rejoinder.core.reply.spoken.units import SpeechSegment
from rejoinder.core.survival.snapshot import SpokenProgress

Clock = Callable[[], float]

# Maximum audio, in seconds, that is synthesized and not sent yet, so a long answer takes at most 1.4 MB of memory.
AHEAD_S = 30.0
# Length of an audio delta, in seconds: ten messages a second. The first delta is sent as soon as there is audio.
DELTA_S = 0.1
# Maximum number of segments that wait for synthesis.
SEGMENT_QUEUE = 8
# Network delay and the client's buffer, in seconds: a client that flushes may have heard this much less than `Playout`
# estimates.
LAG_S = 1.5


class SpeechListener(Protocol):
    """What the speech output needs from its reply: to send the audio and record progress. No method may block."""

    def speaking(self, text: str) -> None:
        """Called right before the first audio of a segment or clip is sent; `text` has its written words.

        A space is its first character unless the segment continues a word of the segment before.
        """
        ...

    def audio(self, pcm: bytes, *, answers: bool) -> None:
        """Send 16-bit PCM at 24 kHz now; `answers` is False for a clip and for audio that is sent again."""
        ...

    def synthesis_started(self) -> None:
        """Called when the synthesis of a segment starts."""
        ...

    def first_audio_ready(self) -> None:
        """Called when the first audio of a segment is ready."""
        ...


@dataclass(frozen=True, slots=True)
class SpeechOutputSettings:
    """Settings of one speech output.

    Attributes:
        lead_s: Maximum time, in seconds, that audio is sent before the listener plays it.
        attempt_s: First idle timeout of a synthesis stream, in seconds; it grows after timeouts.
        give_up_s: Seconds without new audio of a segment after which a failure is final.
        voice: Name of the voice.
        speed: Speaking rate relative to the voice's own.
    """

    lead_s: float
    attempt_s: float
    give_up_s: float
    voice: str = "default"
    speed: float = 1.0


class SpeechOutput:
    """Speech of one reply. Call `say` for each segment, then `finish`. `run` ends when all of it was heard.

    Before `released` is set nothing is sent, and only the first segment is synthesized.
    """

    def __init__(
        self,
        tts: TtsPort,
        phrases: HeldClips,
        listener: SpeechListener,
        settings: SpeechOutputSettings,
        *,
        failures: StageFailures,
        clock: Clock,
        released: asyncio.Event,
        stop_audio: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Create an output without segments.

        Args:
            tts: The engine.
            phrases: The prepared clips. A segment with the words of a clip needs no engine.
            listener: Sends the audio and records progress.
            settings: Pacing, timeouts and voice.
            failures: Records failures and recovery of text-to-speech.
            clock: Returns the monotonic time, in seconds.
            released: Set when the reply may be heard.
            stop_audio: Drops the audio that was passed on and not heard, and returns the number of its samples
                (24 kHz); None if the client plays the audio.
        """
        self._tts = tts
        self._phrases = phrases
        self._released = released
        self._stop_audio = stop_audio
        self._listener = listener
        self._settings = settings
        self._failures = failures
        self._clock = clock
        self._segments: asyncio.Queue[SpeechSegment | None] = asyncio.Queue(SEGMENT_QUEUE)
        self._buffer = ReplayBuffer(round((settings.lead_s + LAG_S) * WIRE_RATE))
        self._playout = Playout(settings.lead_s)
        # At most half the lead, so that one delta plays while the next is on its way.
        self._delta = max(1, round(min(DELTA_S, settings.lead_s / 2) * WIRE_RATE))
        self._synthesized = False
        self._wants_text = True
        self._resumed_at_s = 0.0
        # Number of segments whose audio has begun to arrive.
        self._begun = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()

    @property
    def audio_ms(self) -> int:
        """Length of the audio sent so far, in ms."""
        return round(self._playout.reached_s * 1000)

    @property
    def left_s(self) -> float:
        """Seconds of audio that are still to be heard; infinite while more is being synthesized."""
        return self._playout.left_s(self._clock()) if self._synthesized else math.inf

    async def say(self, segment: SpeechSegment) -> None:
        """Queue a segment; wait while SEGMENT_QUEUE segments wait for synthesis."""
        await self._segments.put(segment)

    async def finish(self) -> None:
        """Tell the output that no segment follows. Waits like `say`."""
        await self._segments.put(None)

    def play(self, clip: HeldClip) -> None:
        """Play a prepared clip after the audio that was queued before. Its words are not part of the answer."""
        self._playout.begin(SpeechSegment(()))
        self._playout.add(len(clip.pcm) // SAMPLE_BYTES)
        self._playout.end()
        self._buffer.add(ReplayPiece(f" {clip.text}", clip.pcm, answers=False))
        self._changed.set()

    async def say_last(self, clip: HeldClip) -> None:
        """Send the remaining synthesized audio, then a clip. Wait until the listener has heard it.

        Nothing can be said afterwards. Call this only after `run` has failed or ended.
        """
        self.play(clip)
        self._synthesized = True
        await self._deliver()

    def drained(self) -> bool:
        """Return True if the listener hears nothing, no audio waits to be sent, and the output is not paused."""
        all_heard = not self._buffer.waiting and self._playout.finish(self._clock()) <= self._clock()
        return all_heard and self._flowing.is_set()

    def starving(self) -> bool:
        """Return True if the listener hears nothing because the text arrives more slowly than it is spoken."""
        return self._wants_text and self._segments.empty() and self.drained()

    def pause(self, *, dropped: bool = True) -> float:
        """Send nothing until `resume` is called. Return the seconds for which the listener still hears audio.

        `dropped` is True if the client is told to drop the audio that it has not played. Otherwise it plays that.
        """
        self._flowing.clear()
        now, heard = self._clock(), self._drop_unheard()
        if heard is None and not dropped:
            return self._playout.finish(now) - now
        self._buffer.wind(self._playout.flush(now, heard))
        return 0.0

    def flushed(self, at_s: float) -> None:
        """Set the position of a paused output to `at_s`, where the client says that it stopped (seconds of audio).

        Ignored unless the output is paused.
        """
        if self._flowing.is_set():
            return
        position = max(self._buffer.oldest, round(self.listener_position_s(at_s) * WIRE_RATE))
        self._buffer.wind(self._playout.flush(self._clock(), position))

    def listener_position_s(self, at_s: float) -> float:
        """Return the position in the audio, in seconds, at which a client stopped that reports `at_s` seconds.

        Some clients count from the start of the audio, others from their last flush. The interpretation that is nearer
        to the position that `Playout` estimates is used.
        """
        modelled_s = self._playout.position_s(self._clock())
        return min((at_s, self._resumed_at_s + at_s), key=lambda position: abs(position - modelled_s))

    def resume(self) -> None:
        """Continue to send audio, from the sample after the last one that was heard."""
        self._resumed_at_s = self._playout.position_s(self._clock())
        self._flowing.set()
        self._changed.set()

    def silence(self) -> str:
        """Drop the audio that was not heard. Return the text of the answer that was heard."""
        self._buffer.clear()
        if (heard := self._drop_unheard()) is not None:
            self._playout.flush(self._clock(), heard)
        return self.heard_text()

    def _drop_unheard(self) -> int | None:
        """Let the server's player drop what it has not sent. Return the number of samples that were heard.

        None if the client plays the audio.
        """
        dropped = self._stop_audio()
        return None if dropped is None else self._playout.sent_samples - dropped

    def progress(self, coming: Sequence[SpeechSegment], *, complete: bool) -> SpokenProgress | None:
        """Return how far the answer was spoken; None if no word of it is known.

        Args:
            coming: All segments that were passed to `say`.
            complete: True if no segment follows them.
        """
        line = self._playout.timeline(coming[self._begun :])
        if not line.text:
            return None
        return SpokenProgress(
            line.text,
            tuple(line.marks),
            heard_ms=round(self._playout.position_s(self._clock()) * 1000),
            sent_ms=self.audio_ms,
            complete=complete,
        )

    def sent_text(self) -> str:
        """Return the text of the answer whose audio was sent."""
        return self._playout.heard_text(self._playout.reached_s)

    def heard_text(self, at_s: float | None = None) -> str:
        """Return the text of the answer that was heard until now, or in the first `at_s` seconds of the audio."""
        return self._playout.heard_text(self._playout.position_s(self._clock()) if at_s is None else at_s)

    @property
    def played_s(self) -> float:
        """Seconds of audio that the listener has heard."""
        return self._playout.position_s(self._clock())

    def words_around(self, before_s: float, after_s: float) -> str:
        """Return the words from `before_s` seconds before the listener's position to `after_s` seconds after it."""
        position_s = self._playout.position_s(self._clock())
        return self._playout.words_between(position_s - before_s, position_s + after_s)

    async def run(self) -> None:
        """Synthesize and send all segments until the last was heard. Cancelling stops the engine at its next chunk.

        Raises:
            ExceptionGroup: Contains the BackendError of a segment that could not be synthesized.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._synthesize())
            group.create_task(self._deliver())

    async def _synthesize(self) -> None:
        while (segment := await self._segments.get()) is not None:
            self._wants_text = False
            await self._synthesize_segment(segment)
            await self._released.wait()
            self._wants_text = True
        self._synthesized = True
        self._changed.set()

    async def _synthesize_segment(self, said: SpeechSegment) -> None:
        """Queue the audio of one segment, from a prepared clip or by synthesis.

        A failed synthesis is repeated on another replica. It starts at the beginning of the segment, so the samples
        that earlier attempts enqueued are skipped.
        """
        clip = self._phrases.of(said.written) if self._settings.speed == 1 else None
        if clip:
            self._listener.synthesis_started()
            await self._enqueue(said, clip.pcm)
            self._playout.end()
            return
        self._listener.synthesis_started()
        segment = _Segment(said)
        settings, failed = self._settings, partial(self._failures.failed, "tts")
        async for attempt in attempts("tts", failed, limit_s=settings.attempt_s, give_up_s=settings.give_up_s):
            with attempt:
                await self._synthesize_rest(segment, attempt)
        self._playout.end()
        self._failures.recovered("tts")

    async def _synthesize_rest(self, segment: _Segment, attempt: Attempt) -> None:
        """Synthesize the segment, drop the samples that earlier attempts enqueued, and enqueue the others."""
        request = TtsRequest(segment.said.spoken, self._settings.voice, self._settings.speed)
        seen = 0
        async with idle_timeout(attempt.limit_s) as waiting, self._tts.open(request, avoid=attempt.avoid) as chunks:
            async for pcm in chunks:
                waiting.pause()
                fresh = pcm[max(0, segment.enqueued - seen) * SAMPLE_BYTES :]
                seen += len(pcm) // SAMPLE_BYTES
                if fresh:
                    self._failures.recovered("tts")
                    await self._enqueue(segment.said if segment.enqueued == 0 else None, fresh)
                    segment.enqueued = seen
                    attempt.progressed()
                waiting.restart()

    async def _enqueue(self, begun: SpeechSegment | None, pcm: bytes) -> None:
        """Queue audio; `begun` is the segment that begins with it, None for the rest of a segment's audio."""
        while self._buffer.waiting > AHEAD_S * WIRE_RATE:
            self._has_room.clear()
            await self._has_room.wait()
        words = ""
        if begun:
            words = begun.written if begun.glued else f" {begun.written}"
            self._playout.begin(begun)
            self._begun += 1
            self._listener.first_audio_ready()
        self._playout.add(len(pcm) // SAMPLE_BYTES)
        self._buffer.add(ReplayPiece(words, pcm))
        self._changed.set()

    async def _deliver(self) -> None:
        """Send all audio, until the listener has heard it."""
        await self._released.wait()
        while True:
            await self._flowing.wait()
            now = self._clock()
            if self._buffer.waiting:
                samples = min(self._buffer.waiting, self._delta)
                if (wait_s := self._playout.wait_s(samples, now)) > 0:
                    await asyncio.sleep(wait_s)
                else:
                    self._send(self._buffer.take(samples), now)
            elif not self._synthesized:
                self._changed.clear()
                await self._changed.wait()
            elif (left_s := self._playout.finish(now) - now) > 0:
                await asyncio.sleep(left_s)
            else:
                self._buffer.clear()  # frees the audio: the ended reply itself stays in memory for a while
                return

    def _send(self, piece: ReplayPiece, now: float) -> None:
        self._playout.sent(piece.samples, now)
        if piece.words:
            self._listener.speaking(piece.words)
        self._listener.audio(piece.pcm, answers=piece.answers)
        self._has_room.set()


@dataclass(slots=True)
class _Segment:
    said: SpeechSegment
    enqueued: int = 0
