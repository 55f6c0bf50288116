"""One call of Asterisk: the AudioSocket connection on one side, the session on the other."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from contextlib import suppress

from deployments.telephony.phone_webhook import PhoneWebhook
from loadtest.callers.resume_state import Position
from rejoinder.cli.phone.session_link import SessionLink, SessionServer
from rejoinder.core.audio.g711 import MU_LAW
from rejoinder.core.errors import CallerError, RejoinderError
from rejoinder.core.telephony.audiosocket import FRAME_BYTES, HANG_UP, FrameKind, FrameReader, SocketFrame
from rejoinder.core.telephony.frame_pacer import FRAME_S, PhonePacer
from rejoinder.core.telephony.phone_call import DropAudio, EndCall, PhoneCall, PhoneCommand, PlayAudio, ToSession
from rejoinder.core.telephony.phone_tools import PhoneProfile, Transfer
from rejoinder.core.wire.fields import Json

logger = logging.getLogger(__name__)

FIRST_FRAME_S = 5.0
"""Seconds in which a connection must say which call it is."""
READ_BYTES = 65_536
MAX_WAITING_BYTES = 16_000 * 30
"""Audio that may wait to be played: 30 s. A server that sends more ahead of time is not ours, and the call ends."""


class AudioSocketCall:
    """One connection of Asterisk. Call `run` once."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: SessionServer,
        profile: PhoneProfile,
        *,
        webhook: PhoneWebhook | None = None,
    ) -> None:
        """Create the call.

        Args:
            reader: What Asterisk sends.
            writer: What Asterisk gets.
            server: The servers to call.
            profile: What the agent is told and may do.
            webhook: Hands callers over; None if nothing does.
        """
        self._reader, self._writer = reader, writer
        self._server = server
        self._call = PhoneCall(profile)
        self._webhook = webhook
        self._frames = FrameReader()
        self._pacer = PhonePacer()
        self._pcm = b""
        self._id = ""
        self._group = asyncio.TaskGroup()
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Run the call until either side ends it, and hang up."""
        try:
            rest = await self._first()
            link = await SessionLink.dial(self._server)
            try:
                await self._converse(link, rest)
            finally:
                await link.close()
        except (RejoinderError, OSError, TimeoutError) as fault:
            logger.warning("a call of Asterisk ended: %s", str(fault) or "it does not say which call it is")
        except ExceptionGroup:  # catch everything here: a bug ends this call and no other
            logger.exception("call %s failed", self._id)
        finally:
            with suppress(OSError):  # Asterisk may have closed the connection already
                self._writer.write(HANG_UP)
                self._writer.close()
                await self._writer.wait_closed()

    async def _first(self) -> list[SocketFrame]:
        """Read the frame with the call's id. Return the frames that came with it. Raise CallerError without one."""
        async with asyncio.timeout(FIRST_FRAME_S):
            while data := await self._reader.read(READ_BYTES):
                if frames := self._frames.feed(data):
                    first, *rest = frames
                    if first.kind != FrameKind.UUID or len(first.payload) != 16:
                        raise CallerError("The first frame of an AudioSocket is not the id of the call.")
                    self._id = str(uuid.UUID(bytes=first.payload))
                    return rest
        raise CallerError("Asterisk has closed the connection.")

    async def _converse(self, link: SessionLink, rest: list[SocketFrame]) -> None:
        async def session() -> None:
            await link.run(lambda event: self._server_event(link, event), self._position, self._call.reconnected)
            self._over.set()

        async with self._group as group:
            tasks = [
                group.create_task(session()),
                group.create_task(self._listen(link, rest)),
                group.create_task(self._play(link)),
            ]
            await self._over.wait()
            for task in tasks:
                task.cancel()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _position(self) -> Position | None:
        """Return how much of the last reply was sent to the telephone or waits here to be sent."""
        got = self._call.received()
        return Position(got.item_id, got.ms) if got.item_id else None

    async def _server_event(self, link: SessionLink, event: Json) -> None:
        await self._carry_out(link, self._call.server_event(event, self._now))

    async def _listen(self, link: SessionLink, frames: list[SocketFrame]) -> None:
        """Handle Asterisk's frames until it hangs up."""
        with suppress(OSError):  # a broken connection ends the call as a hang-up does
            while all([await self._take(link, frame) for frame in frames]):
                if not (data := await self._reader.read(READ_BYTES)):
                    break
                frames = self._frames.feed(data)
        self._over.set()

    async def _take(self, link: SessionLink, frame: SocketFrame) -> bool:
        """Handle a frame. Return False if it ends the call."""
        if frame.kind == FrameKind.AUDIO:
            self._pcm += frame.payload
            while len(self._pcm) >= FRAME_BYTES:
                audio, self._pcm = self._pcm[:FRAME_BYTES], self._pcm[FRAME_BYTES:]
                await self._carry_out(link, self._call.caller_audio(MU_LAW.encode(audio)))
        elif frame.kind == FrameKind.DTMF and frame.digit:
            await self._carry_out(link, self._call.key_pressed(frame.digit))
        elif frame.kind == FrameKind.ERROR:
            logger.warning("Asterisk reports an error in call %s: %s", self._id, frame.payload.hex())
        return frame.kind not in (FrameKind.HANG_UP, FrameKind.ERROR)

    async def _play(self, link: SessionLink) -> None:
        """Send the agent's audio in frames of 20 ms, and report what was played."""
        with suppress(OSError):  # `_listen` ends the call when the connection breaks
            while True:
                now = self._now
                frames, marks = self._pacer.due(now)
                for pcm in frames:
                    self._writer.write(SocketFrame(FrameKind.AUDIO, pcm).encode())
                await self._writer.drain()
                for mark in marks:
                    await self._carry_out(link, self._call.played(mark, now))
                await self._carry_out(link, self._call.tick(now))
                await asyncio.sleep(FRAME_S / 2)
        self._over.set()

    async def _carry_out(self, link: SessionLink, commands: Iterable[PhoneCommand]) -> None:
        for command in commands:
            match command:
                case ToSession(event=event):
                    await link.send(event)
                case PlayAudio(audio=audio, mark=mark):
                    self._pacer.add(MU_LAW.decode(audio), mark)
                    if self._pacer.waiting > MAX_WAITING_BYTES:
                        logger.warning("call %s ended: the server sends audio faster than real time", self._id)
                        self._over.set()
                case DropAudio():
                    self._pacer.drop()
                case EndCall():
                    self._over.set()
                case _:
                    self._group.create_task(self._hand_over(link, command.transfer))

    async def _hand_over(self, link: SessionLink, transfer: Transfer) -> None:
        result = "Transfers are not possible."
        if self._webhook:
            result = await self._webhook.transfer(transfer, self._id, "")
        await self._carry_out(link, self._call.transferred(transfer, result))
