"""Contender: LiveKit Agents without a room, with its own session, turn taking and voice activity.

The engines take fixed times. The settings follow LiveKit's documentation for endpointing by voice activity: 0.2 s of
silence, no further delay, and the language model started on the transcript. The module runs in a separate environment
(`requirements-livekit.txt`), so it imports nothing from Rejoinder but `contender`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from livekit import rtc
from livekit.agents import Agent, AgentSession, APIConnectOptions, inference, llm, stt, tts
from livekit.agents.vad import VADEventType
from livekit.agents.voice import io

from benchmarks.frameworks import contender
from benchmarks.frameworks.contender import FRAME_BYTES, RATE, ReportedEdge

SILENCE_S = 0.2
_CONNECT = APIConnectOptions()
_SAMPLES = FRAME_BYTES // 2


def _frame(pcm: bytes) -> rtc.AudioFrame:
    return rtc.AudioFrame(pcm, RATE, 1, _SAMPLES)


def _vad() -> inference.VAD:
    return inference.VAD(min_silence_duration=SILENCE_S)


class LiveKitStt(stt.STT):
    """Speech-to-text engine that gives the same transcript for every utterance, a fixed time after its end."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False, manual_flush=True))

    async def _recognize_impl(self, *arguments, **options):
        raise NotImplementedError("streams only")

    def stream(self, *, language=None, conn_options=_CONNECT):
        """Return the stream for one session's audio. It gives the fixed transcript after each utterance."""
        return _SttStream(stt=self, conn_options=conn_options)


class _SttStream(stt.RecognizeStream):
    async def _run(self) -> None:
        async for item in self._input_ch:
            if isinstance(item, self._FlushSentinel):
                asyncio.get_running_loop().call_later(contender.STT_S, self._answer)

    def _answer(self) -> None:
        data = stt.SpeechData(language="en", text=contender.HEARD, confidence=1.0)
        self._event_ch.send_nowait(stt.SpeechEvent(type=stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[data]))


class LiveKitLlm(llm.LLM):
    """Language model that gives the same reply to every prompt, after a fixed time."""

    def chat(self, *, chat_ctx, tools=None, conn_options=_CONNECT, **options):
        """Return a stream that gives the comparison's fixed reply, whatever the arguments are."""
        return _LlmStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _LlmStream(llm.LLMStream):
    async def _run(self) -> None:
        await asyncio.sleep(contender.LLM_S)
        delta = llm.ChoiceDelta(role="assistant", content=contender.REPLY)
        self._event_ch.send_nowait(llm.ChatChunk(id="reply", delta=delta))


class LiveKitTts(tts.TTS):
    """Text-to-speech engine that gives the same audio for every text, after a fixed time."""

    def __init__(self) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=False), sample_rate=contender.REPLY_RATE, num_channels=1
        )

    def synthesize(self, text, *, conn_options=_CONNECT):
        """Return a stream that gives the comparison's fixed audio, whatever `text` is."""
        return _TtsStream(tts=self, input_text=text, conn_options=conn_options)


class _TtsStream(tts.ChunkedStream):
    async def _run(self, output_emitter) -> None:
        await asyncio.sleep(contender.TTS_S)
        output_emitter.initialize(
            request_id="reply", sample_rate=contender.REPLY_RATE, num_channels=1, mime_type="audio/pcm"
        )
        output_emitter.push(contender.REPLY_PCM)
        output_emitter.flush()


class LiveKitMicrophone(io.AudioInput):
    """Audio input that `push` fills with the harness's frames."""

    def __init__(self) -> None:
        super().__init__(label="harness")
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.push = self._frames.put_nowait

    async def __anext__(self) -> rtc.AudioFrame:
        return _frame(await self._frames.get())


class LiveKitLoudspeaker(io.AudioOutput):
    """Audio output that reports the end of playback when the audio would have played, as LiveKit's room output does."""

    def __init__(self, sounds: Callable[[bytes], None]) -> None:
        super().__init__(label="harness", capabilities=io.AudioOutputCapabilities(pause=False))
        self._sounds = sounds
        self._seconds = 0.0
        self._ending: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """Report a frame of reply audio to the harness, and add its duration to the playback."""
        await super().capture_frame(frame)
        self._sounds(bytes(frame.data))
        self._seconds += frame.duration

    def flush(self) -> None:
        """Report the end of playback after the duration of the audio received since the last `flush`."""
        super().flush()
        if self._seconds:
            loop = asyncio.get_running_loop()
            self._ending = loop.call_later(self._seconds, self._finish, self._seconds, False)
            self._seconds = 0.0

    def clear_buffer(self) -> None:
        """Report at once that the playback was interrupted."""
        if self._ending and not self._ending.cancelled():
            self._ending.cancel()
            self._finish(0.0, True)

    def _finish(self, seconds: float, interrupted: bool) -> None:
        self._ending = None
        self.on_playback_finished(playback_position=seconds, interrupted=interrupted)


async def _open(number: int, sounds: Callable[[int, bytes], None]) -> Callable[[bytes], None]:
    session = AgentSession(
        stt=LiveKitStt(),
        vad=_vad(),
        llm=LiveKitLlm(),
        tts=LiveKitTts(),
        turn_handling={
            "turn_detection": "vad",
            "endpointing": {"mode": "fixed", "min_delay": 0.0, "max_delay": 0.0},
            "interruption": {"mode": "vad"},
            "preemptive_generation": {"enabled": True},
        },
        aec_warmup_duration=None,
        user_away_timeout=None,
    )
    microphone = LiveKitMicrophone()
    session.input.audio = microphone
    session.output.audio = LiveKitLoudspeaker(lambda pcm: sounds(number, pcm))
    await session.start(Agent(instructions="Answer briefly."), record=False)
    _SESSIONS.append(session)
    return microphone.push


_SESSIONS: list[AgentSession] = []


async def open_sessions(count: int, sounds: Callable[[int, bytes], None]) -> Sequence[Callable[[bytes], None]]:
    """Open `count` sessions. Return for each the function that takes a frame of its caller's audio.

    `sounds` is called with a session's number and PCM whenever the session sends audio of a reply.
    """
    return [await _open(number, sounds) for number in range(count)]


async def offline(frames: Sequence[bytes]) -> list[ReportedEdge]:
    """Return the ends of speech that LiveKit's voice activity detection, with its configured silence, finds."""
    stream = _vad().stream()
    for frame in frames:
        stream.push_frame(_frame(frame))
    stream.end_input()
    edges = []
    async for event in stream:
        if event.type is VADEventType.END_OF_SPEECH:
            end_ms = _due_ms(event.samples_index)
            edges.append(ReportedEdge(end_ms, end_ms))
    return edges


def _due_ms(samples: int) -> float:
    """Return the deadline, in ms, of the 20 ms frame that contains the last of `samples` samples of the stream.

    The first frame is due at 0.
    """
    return (-(-samples // _SAMPLES) - 1) * 20.0


if __name__ == "__main__":
    logging.getLogger("livekit").setLevel(logging.ERROR)
    contender.main(open_sessions, offline)
