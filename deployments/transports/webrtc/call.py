"""One call over WebRTC: Opus in both directions, and the events of the OpenAI Realtime API on a data channel.

The server plays the audio of replies: `OutputBuffer` lets each 20 ms out when it is due. What it let out is heard, even
if it is still on its way, so a barge-in needs no report of the client. The session is the one of the WebSocket, and
starts when the data channel is open.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from actors.host import Host
from actors.session import Session
from actors.stages.ports import AudioOutput
from deployments.transports.conversation import CLOSE_GOING_AWAY, CLOSE_TRY_LATER, CallStart, End, converse, first_of
from deployments.transports.webrtc.peer import Connect, PeerPlan
from rejoinder.core.access.frame_guard import FrameGuard
from rejoinder.core.access.token_bucket import TokenBucket
from rejoinder.core.audio.input_clock import InputClock
from rejoinder.core.audio.output_buffer import Change, OutputBuffer
from rejoinder.core.audio.pcm import SAMPLE_BYTES
from rejoinder.core.audio.resample import OPUS_RATE, OPUS_TO_STT, Resampler
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json, refuse
from rejoinder.core.wire.sdp import read_offer

SILENCE_S = 0.04
"""Seconds between two checks whether the client's audio has stopped, so that silence takes its place."""
WATCH_S = 1.0
"""Seconds between two checks whether the client is still there and reads its events."""
ROUND_TRIP_S = 5.0
"""Seconds between two records of the round-trip time."""
SPEEDUP, BURST_S = 1.5, 5.0
"""How much faster than time passes a client's audio may arrive, and the seconds that may arrive at once."""


class WebRtcCall:
    """One call and its conversation (`Transport`, `PeerListener`, `AudioOutput`).

    Reserve a place on the host, call `answer`, send its result to the client, and call `run`.
    """

    def __init__(self, host: Host, opening: CallStart, offer: str, connect: Connect) -> None:
        """Prepare a call.

        Args:
            host: The host that runs the session.
            opening: What the session begins with.
            offer: The client's session description.
            connect: Makes the connection.

        Raises:
            CallerError: The offer cannot be answered.
        """
        settings = host.services.settings
        offered = read_offer(offer)
        if not offered.channel:
            raise refuse("The offer has no data channel.", "sdp", remedy="Open the data channel oai-events first.")
        self._host, self._opening, self._settings = host, opening, settings.webrtc
        self._limits, self._stored = settings.limits, host.services.stored
        self._buffer = OutputBuffer(
            settings.webrtc.max_queue_s, self._output_changed, continuous=not settings.webrtc.dtx
        )
        self._peer = connect(PeerPlan(offer, offered, settings.webrtc, output=self._buffer, listener=self))
        self._opened, self._closed, self._flooded = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._session: Session | None = None
        self._resample = Resampler(OPUS_TO_STT)
        self._input = InputClock(OPUS_RATE)
        self._pace = TokenBucket(SPEEDUP * OPUS_RATE, BURST_S * OPUS_RATE)
        self._messages: deque[str | bytes] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._guard = FrameGuard(settings.limits, host.services.message_rate)

    async def answer(self) -> str:
        """Return the answer to the offer. Raise CallerError if the offer cannot be used."""
        return await self._peer.answer()

    async def run(self) -> None:
        """Run the conversation until the client or the host ends it. Return if the client does not connect in time."""
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await first_of(self._opened.wait(), self._closed.wait())
        except TimeoutError:
            self._host.services.metrics.error("caller", "webrtc_connect")
            return
        if not self._closed.is_set():
            await converse(self, self._host, self._opening)

    async def close(self) -> None:
        """Close the connection, and release what it was counted for."""
        self._stored.release(self._waiting_bytes)
        self._waiting_bytes = 0
        self._messages.clear()
        await self._peer.close()

    # -- called by the conversation (Transport) ------------------------------------------------------------------------

    @property
    def output(self) -> AudioOutput:
        """The player of the replies' audio: this call (`Transport`)."""
        return self

    def send(self, event: Json) -> None:
        """Send a server event (`Transport`)."""
        text = json.dumps(event, separators=(",", ":"))
        if self._peer.unsent_bytes + len(text) > self._limits.unsent_bytes:
            self._flooded.set()
            return
        if len(text) > self._peer.max_event_bytes:
            text = json.dumps(
                server.server_error("event_too_large", "An event is too large for the data channel.", None)
            )
        self._guard.answered(self._clock(), len(text))
        self._peer.send(text)

    def carry(self, session: Session) -> Sequence[Coroutine[Any, Any, End]]:
        """Return the coroutines that carry the session (`Transport`)."""
        self._session = session
        return self._read(session), self._fill(session), self._watch(), self._hung_up(session)

    # -- called by the session's replies (AudioOutput) -----------------------------------------------------------------

    def play(self, response_id: str, pcm: bytes) -> None:
        """Append audio of a response (`AudioOutput`)."""
        self._buffer.add(response_id, pcm)
        self._peer.output_changed()

    def end(self, response_id: str) -> None:
        """Record that a response has no more audio (`AudioOutput`)."""
        self._buffer.end(response_id)

    def stop(self, response_id: str | None) -> int:
        """Drop the audio of a response that was not sent, and return the number of its samples (`AudioOutput`)."""
        dropped = self._buffer.clear(response_id)
        self._peer.output_changed()
        return dropped

    def _output_changed(self, change: Change, response_id: str) -> None:
        if self._session:
            self._session.emit(server.output_audio_buffer(change, response_id))

    # -- called by the connection (PeerListener) -----------------------------------------------------------------------

    def opened(self) -> None:
        """Start the session: the channel for events is open (`PeerListener`)."""
        self._opened.set()

    def closed(self) -> None:
        """End the session: the connection is closed (`PeerListener`)."""
        self._closed.set()

    def message(self, text: str | bytes) -> None:
        """Queue a message of the client (`PeerListener`). End the call if too many wait."""
        size = len(text)
        if len(self._messages) >= self._settings.max_waiting_events or not self._stored.take(size):
            self._flooded.set()
            return
        self._waiting_bytes += size
        self._messages.append(text)
        self._arrived.set()

    def audio(self, pcm: bytes) -> None:
        """Append 48 kHz audio of the client to the session (`PeerListener`). Audio before the session is dropped."""
        if not self._session:
            return
        now, samples = self._clock(), len(pcm) // SAMPLE_BYTES
        if self._pace.wait_s(now, samples):
            return
        self._pace.spend(now, samples)
        self._insert_silence(self._session, now)
        self._input.heard(samples, now)
        self._session.append_audio(self._resample(pcm))

    def _insert_silence(self, session: Session, now: float) -> None:
        if missing := self._input.silence(now):
            session.append_audio(self._resample(bytes(missing * SAMPLE_BYTES)))

    # -- the coroutines of the conversation ----------------------------------------------------------------------------

    async def _read(self, session: Session) -> End:
        """Handle the client's events, at most as fast as the limits allow."""
        while True:
            while not self._messages:
                self._arrived.clear()
                await self._arrived.wait()
            message = self._messages.popleft()
            self._waiting_bytes -= len(message)
            self._stored.release(len(message))
            await asyncio.sleep(self._guard.wait_s(self._clock()))
            if refusal := self._guard.admit(self._clock(), len(message), first=True):
                return End(CLOSE_GOING_AWAY, refusal)
            await self._take(session, message)

    async def _take(self, session: Session, message: str | bytes) -> None:
        try:
            event = client.parse(message, self._limits.message_bytes)
        except client.MalformedEvent as fault:
            session.reject(fault, fault.client_event_id)
            return
        if isinstance(event, client.AppendAudio):
            remedy = "Send audio on the audio track."
            refusal = refuse("Audio in events is not accepted over WebRTC.", "type", remedy=remedy)
            session.reject(refusal, event.event_id)
        else:
            await session.submit(event)

    async def _fill(self, session: Session) -> End:
        """Insert silence where the client sends no audio, for as long as the conversation lasts."""
        while True:
            await asyncio.sleep(SILENCE_S)
            self._insert_silence(session, self._clock())

    async def _watch(self) -> End:
        """Return when the client is lost, or does not read its events."""
        packets, heard_at, read_at, pinged_at = -1, self._clock(), self._clock(), self._clock()
        while not self._flooded.is_set():
            await asyncio.sleep(WATCH_S)
            now = self._clock()
            if self._peer.packets_received != packets:
                packets, heard_at = self._peer.packets_received, now
            if not self._peer.unsent_bytes:
                read_at = now
            if now - pinged_at >= ROUND_TRIP_S and (round_trip_s := self._peer.round_trip_s) is not None:
                self._host.services.metrics.round_trip(round_trip_s, "webrtc")
                pinged_at = now
            if now - heard_at >= self._settings.lost_after_s:
                self._host.services.metrics.error("caller", "lost")
                return End(CLOSE_GOING_AWAY, "the client is lost")
            if now - read_at >= self._limits.unread_s:
                break
        self._host.services.metrics.error("caller", "slow_client")
        return End(CLOSE_TRY_LATER, "the client does not read its events, or sends too many")

    async def _hung_up(self, session: Session) -> End:
        """Return when the connection is closed. The client may go on with the session over another one for a while."""
        await self._closed.wait()
        session.hung_up()
        return End(None)
