"""Driver of LiveKit's agent session with the realtime model of livekit-plugins-openai, without a room."""

import asyncio
import time

from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.voice import io
from livekit.plugins.openai.realtime import RealtimeModel
from microphone import RESULT, Microphone, Observer, converse, settled

observer = Observer()
microphone = Microphone(observer)


class Input(io.AudioInput):
    """The microphone as LiveKit's audio input."""

    def __init__(self) -> None:
        super().__init__(label="microphone")

    async def __anext__(self) -> rtc.AudioFrame:
        return rtc.AudioFrame(await microphone.frame(), 24_000, 1, 480)


class Output(io.AudioOutput):
    """A loudspeaker that plays in real time and reports how much it has played."""

    def __init__(self) -> None:
        super().__init__(label="loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self._began_at, self._seconds = 0.0, 0.0
        self._playing: asyncio.Task[None] | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._seconds:
            self._began_at = time.monotonic()
            self.on_playback_started(created_at=time.time())
        self._seconds += frame.duration
        observer.tell("audio", bytes=len(frame.data.tobytes()))

    def flush(self) -> None:
        super().flush()
        if self._seconds and self._playing is None:
            self._playing = asyncio.create_task(self._play())

    async def _play(self) -> None:
        await asyncio.sleep(max(0.0, self._began_at + self._seconds - time.monotonic()))
        self._end(self._seconds, interrupted=False)

    def clear_buffer(self) -> None:
        if self._playing:
            self._playing.cancel()
        if self._seconds:
            observer.tell("stopped")
            self._end(min(self._seconds, time.monotonic() - self._began_at), interrupted=True)

    def _end(self, played_s: float, *, interrupted: bool) -> None:
        self._seconds, self._playing = 0.0, None
        self.on_playback_finished(playback_position=played_s, interrupted=interrupted)


class Forecaster(Agent):
    """An agent with one tool."""

    def __init__(self) -> None:
        super().__init__(instructions="Answer in one short sentence.")

    @function_tool()
    async def get_weather(self, city: str) -> str:
        """Tell the weather in a city."""
        observer.tell("tool", name="get_weather", arguments={"city": city})
        return RESULT


async def main() -> None:
    model = RealtimeModel(base_url=microphone.url, api_key="none", model="rejoinder")
    session: AgentSession[None] = AgentSession(llm=model)
    session.input.audio = Input()
    session.output.audio = Output()

    @session.on("user_input_transcribed")
    def _(event) -> None:
        if event.is_final:
            observer.tell("user", text=event.transcript)

    @session.on("conversation_item_added")
    def _(event) -> None:
        if getattr(event.item, "role", "") == "assistant":
            observer.tell("agent", text=event.item.text_content)

    @session.on("error")
    def _(event) -> None:
        lost = event.error.recoverable and any(line["kind"] == "cut" for line in observer.seen)
        observer.tell("lost" if lost else "error", text=repr(event.error))

    await session.start(Forecaster())
    await converse(observer, microphone)
    # LiveKit connects again and creates the items of its history in the new session.
    observer.tell("cut")
    await asyncio.sleep(2)
    microphone.ask("memory")
    await observer.until(lambda: bool(observer.since_question("agent")), "the answer to memory")
    await settled(observer)
    observer.tell("end")
    await session.aclose()


asyncio.run(main())
