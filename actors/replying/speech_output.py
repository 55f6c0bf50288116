"""Speaking: segments become audio, audio is paced to the listener, and what was heard is known at every instant.

Two loops share a bounded tape of audio: one synthesizes segments in order, the other releases audio at most
`playout_lead_ms` ahead of the listener, so that a barge-in has little to take back and the history stays true. A paused
voice releases nothing; when it is resumed it goes on behind the last sample that was heard.
Nothing limits a stream on Ray's path, so the tape's own bound (`AHEAD_S`) is what stops synthesis from running away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from actors.stages.ports import TtsPort, TtsRequest
from actors.stages.retry import Attempt, StageFailures, attempts, idle_timeout
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.replay_buffer import ReplayBuffer, ReplayPiece

Clock = Callable[[], float]

# Audio is synthesized at most this far ahead of what was sent: a long answer costs 1.4 MB, not its whole length.
AHEAD_S = 30.0
# One delta a tenth of a second: ten messages a second, not fifty; the first one goes out as soon as it exists.
DELTA_S = 0.1
SEGMENT_QUEUE = 8
# A listener's own buffer and the way to it: so much less than we reckon it may have heard when it flushes.
LAG_S = 1.5


class SpeechListener(Protocol):
    """What the voice tells its reply."""

    def speaking(self, text: str) -> None:
        """The first audio of a segment (or clip) is about to be sent."""
        ...

    def audio(self, pcm: bytes, *, answers: bool) -> None:
        """Send this audio now; `answers` is False for a clip."""
        ...

    def synthesis_started(self) -> None: ...

    def first_audio_ready(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SpeechOutputSettings:
    """`attempt_s` bounds the wait for each chunk of audio (longer after it was late), `give_up_s` the whole of a
    segment's trouble.
    """

    lead_s: float
    attempt_s: float
    give_up_s: float
    voice: str = "default"
    speed: float = 1.0


class SpeechOutput:
    """One reply's speech. `run` ends when all was heard; cancelling it stops the engine at its next chunk.

    Before `go` is set nothing is sent, and only the first segment is synthesized.
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
    ) -> None:
        self._tts = tts
        self._phrases = phrases
        self._released = released
        self._listener = listener
        self._settings = settings
        self._failures = failures
        self._clock = clock
        self._segments: asyncio.Queue[str | None] = asyncio.Queue(SEGMENT_QUEUE)
        self._buffer = ReplayBuffer(round((settings.lead_s + LAG_S) * WIRE_RATE))
        self._playout = Playout(settings.lead_s)
        # Half the lead at most: one delta is heard while the next is on its way.
        self._delta = max(1, round(min(DELTA_S, settings.lead_s / 2) * WIRE_RATE))
        self._synthesized = False
        self._resumed_at_s = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()

    @property
    def audio_ms(self) -> int:
        """Length of the audio sent so far."""
        return round(self._playout.reached_s * 1000)

    @property
    def left_s(self) -> float:
        """What is still to be heard, as far as that is known."""
        return self._playout.left_s(self._clock()) if self._synthesized else math.inf

    async def say(self, text: str) -> None:
        """Queue a segment; waits while SEGMENT_QUEUE of them wait for synthesis."""
        await self._segments.put(text)

    async def finish(self) -> None:
        """No segment follows."""
        await self._segments.put(None)

    def play(self, clip: HeldClip) -> None:
        """Speak a held clip behind the audio that is already there; its words are no part of the answer."""
        self._playout.begin("")
        self._playout.add(len(clip.pcm) // SAMPLE_BYTES)
        self._playout.end()
        self._buffer.add(ReplayPiece(clip.text, clip.pcm, answers=False))
        self._changed.set()

    async def say_last(self, clip: HeldClip) -> None:
        """After `run` failed: send what was synthesized, then a held clip, and nothing more."""
        self.play(clip)
        self._synthesized = True
        await self._deliver()

    def drained(self) -> bool:
        """Whether the listener hears nothing and nothing is ready to be heard."""
        all_heard = not self._buffer.waiting and self._playout.finish(self._clock()) <= self._clock()
        return all_heard and self._flowing.is_set()

    def pause(self) -> None:
        """Send nothing from now on: the listener flushes what it holds."""
        self._flowing.clear()
        self._buffer.wind(self._playout.flush(self._clock()))

    def flushed(self, at_s: float) -> None:
        """The listener says that it stopped at `at_s`; only a paused voice goes back there."""
        if self._flowing.is_set():
            return
        position = max(self._buffer.oldest, round(self.listener_position_s(at_s) * WIRE_RATE))
        self._buffer.wind(self._playout.flush(self._clock(), position))

    def listener_position_s(self, at_s: float) -> float:
        """The position of a listener who says that it stopped at `at_s`: into the audio, or, as some clients count,
        into what it was sent since the last flush; whichever is nearer to our own reckoning.
        """
        reckoned_s = self._playout.position_s(self._clock())
        return min((at_s, self._resumed_at_s + at_s), key=lambda position: abs(position - reckoned_s))

    def resume(self) -> None:
        """Go on behind the last sample that was heard."""
        self._resumed_at_s = self._playout.position_s(self._clock())
        self._flowing.set()
        self._changed.set()

    def silence(self) -> str:
        """Drop what was not sent; returns what was heard of the answer."""
        self._buffer.clear()
        return self.heard_text()

    def sent_text(self) -> str:
        """The words of the answer whose audio was sent, heard already or about to be."""
        return self._playout.heard_text(self._playout.reached_s)

    def heard_text(self, at_s: float | None = None) -> str:
        """The words played by now, or by `at_s` seconds into the audio if the client says so."""
        return self._playout.heard_text(self._playout.position_s(self._clock()) if at_s is None else at_s)

    def words_around(self, before_s: float, after_s: float) -> str:
        """The words around the listener's position."""
        position_s = self._playout.position_s(self._clock())
        return self._playout.words_between(position_s - before_s, position_s + after_s)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._synthesize())
            group.create_task(self._deliver())

    async def _synthesize(self) -> None:
        while (text := await self._segments.get()) is not None:
            await self._synthesize_segment(text)
            await self._released.wait()
        self._synthesized = True
        self._changed.set()

    async def _synthesize_segment(self, text: str) -> None:
        """One segment: from what is held, or synthesized, and then asked again on another replica if it fails, without
        repeating what was made already.
        """
        clip = self._phrases.of(text) if self._settings.speed == 1 else None
        if clip:
            self._listener.synthesis_started()
            await self._enqueue(text, clip.pcm)
            self._playout.end()
            return
        self._listener.synthesis_started()
        segment = _Segment(text)
        settings, failed = self._settings, partial(self._failures.failed, "tts")
        async for attempt in attempts("tts", failed, limit_s=settings.attempt_s, give_up_s=settings.give_up_s):
            with attempt:
                await self._synthesize_rest(segment, attempt)
        self._playout.end()
        self._failures.recovered("tts")

    async def _synthesize_rest(self, segment: _Segment, attempt: Attempt) -> None:
        """Synthesize the segment and keep what lies behind the samples that are kept already."""
        request = TtsRequest(segment.text, self._settings.voice, self._settings.speed)
        seen = 0
        async with idle_timeout(attempt.limit_s) as waiting, self._tts.open(request, avoid=attempt.avoid) as chunks:
            async for pcm in chunks:
                waiting.pause()
                fresh = pcm[max(0, segment.enqueued - seen) * SAMPLE_BYTES :]
                seen += len(pcm) // SAMPLE_BYTES
                if fresh:
                    self._failures.recovered("tts")
                    await self._enqueue(segment.text if segment.enqueued == 0 else "", fresh)
                    segment.enqueued = seen
                    attempt.progressed()
                waiting.restart()

    async def _enqueue(self, words: str, pcm: bytes) -> None:
        while self._buffer.waiting > AHEAD_S * WIRE_RATE:
            self._has_room.clear()
            await self._has_room.wait()
        if words:
            self._playout.begin(words)
            self._listener.first_audio_ready()
        self._playout.add(len(pcm) // SAMPLE_BYTES)
        self._buffer.add(ReplayPiece(words, pcm))
        self._changed.set()

    async def _deliver(self) -> None:
        """Send all that is made, until the listener has heard it."""
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
                self._buffer.clear()  # nothing is sent again: an ended reply is remembered without its audio
                return

    def _send(self, piece: ReplayPiece, now: float) -> None:
        self._playout.sent(piece.samples, now)
        if piece.words:
            self._listener.speaking(piece.words)
        self._listener.audio(piece.pcm, answers=piece.answers)
        self._has_room.set()


@dataclass(slots=True)
class _Segment:
    text: str
    enqueued: int = 0
