"""Twilio's stream as a Realtime connection: it lets `RealtimeSocket` run a telephone call like any other session.

Twilio's messages become client events, and server events become Twilio's messages (`PhoneCall` decides how). Limits,
queues, expiry and resuming are those of `RealtimeSocket`. The caller's audio takes the fast path of the connection: it
passes no queue and no JSON parser, while nothing else of the call waits for the session.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocketDisconnect

from deployments.telephony.phone_webhook import PhoneWebhook
from deployments.transports.realtime_ws import AGENT_ENDED, AcceptedSocket, AudioShortcut
from rejoinder.core.errors import CallerError
from rejoinder.core.telephony import twilio_messages as twilio
from rejoinder.core.telephony.phone_call import DropAudio, EndCall, PhoneCall, PhoneCommand, PlayAudio, ToSession
from rejoinder.core.telephony.phone_tools import Transfer

logger = logging.getLogger(__name__)

TICK_S = 0.5
QUEUE_EVENTS = 256
"""Client events that wait for the session at most. While the queue is full, Twilio is not read."""
MAX_MALFORMED = 5
"""Malformed messages after which a stream is closed: what sends them is not Twilio."""
CLOSE_NORMAL, CLOSE_POLICY = 1000, 1008
# A media message as Twilio writes it, with or without spaces. Others are parsed as JSON.
_MEDIA = re.compile(rb'\{"event": ?"media",[^\\]*"payload": ?"([A-Za-z0-9+/=]+)"[^\\]*\}')
# Beginning of the append event that it becomes.
_APPEND = b'{"type":"input_audio_buffer.append","audio":"'
_ENDED = {"type": "websocket.disconnect", "code": 1000}
_LOST = {"type": "websocket.disconnect", "code": 1006}


class TwilioSocket:
    """`AcceptedSocket` and `AudioShortcut` over a stream of Twilio that has begun.

    Use it as a context manager while the session runs.
    """

    def __init__(
        self,
        socket: AcceptedSocket,
        start: twilio.StreamStarted,
        call: PhoneCall,
        *,
        caller: str = "",
        webhook: PhoneWebhook | None = None,
        shortcut: AudioShortcut | None = None,
    ) -> None:
        """Create the connection.

        Args:
            socket: Twilio's WebSocket, whose `start` message was read.
            start: This message.
            call: Decides what to send where.
            caller: Number of the caller; "" if it is not known.
            webhook: Hands callers over; None if nothing does.
            shortcut: The connection below the socket, which counts its messages.
        """
        self._socket = socket
        self._start = start
        self._call = call
        self._caller = caller
        self._webhook = webhook
        self._shortcut = shortcut
        self._to_session: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(QUEUE_EVENTS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._malformed = 0
        # Client events that the session has not handled yet. While there are any, audio waits behind them.
        self._unhandled = 0
        self._append: Callable[[bytes], bool] | None = None
        # Code and reason with which the stream is closed when the session has ended; None if it is closed already.
        self._close_with: tuple[int, str] | None = None

    async def __aenter__(self) -> TwilioSocket:
        self._spawn(self._pump())
        self._spawn(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._close_with:
            with suppress(OSError, RuntimeError, WebSocketDisconnect):  # Twilio may have closed it meanwhile
                await self._socket.close(*self._close_with)

    # -- called by RealtimeSocket --------------------------------------------------------------------------------------

    async def receive(self) -> Mapping[str, Any]:
        """Return the next client event of the session, or the end of the call."""
        return await self._to_session.get()

    async def send_text(self, data: str) -> None:
        """Handle a server event: let Twilio play what is to be played."""
        await self._carry_out(self._call.server_event(json.loads(data), self._now))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close Twilio's stream. Twilio then asks `/voice` how the call goes on."""
        await self._socket.close(code, reason)

    def attend(self, take: Callable[[bytes], bool] | None) -> None:
        """Give Twilio's audio directly to the function `take`, as append events; None to give it nothing any more."""
        self._append = take
        if self._shortcut:
            self._shortcut.attend(self._take_audio if take else None)

    def answered(self) -> None:
        """Record that the session has handled a client event."""
        self._unhandled -= 1

    def when_stopped(self, act: Callable[[], None] | None) -> None:
        """Call `act` when the server stops; None to call nothing."""
        if self._shortcut:
            self._shortcut.when_stopped(act)

    def when_pinged(self, act: Callable[[float], None] | None) -> None:
        """Do nothing: the other end is Twilio and not the caller."""

    def charge(self, size: int) -> None:
        """Do nothing: the session's events do not go to Twilio."""

    def abort_after(self, seconds: float) -> None:
        """Drop the connection after some seconds."""
        if self._shortcut:
            self._shortcut.abort_after(seconds)

    # -- the telephone -------------------------------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_audio(self, message: bytes) -> bool:
        """Append the audio of an ordinary media message and return True. Return False for any other message."""
        if self._append is None or self._unhandled or not self._call.ready:
            return False
        found = _MEDIA.fullmatch(message)
        if found is None or b"outbound" in message or message.count(b'"payload"') != 1:
            return False
        return self._append(_APPEND + found[1] + b'"}')

    async def _submit(self, message: Mapping[str, Any]) -> None:
        self._unhandled += 1
        await self._to_session.put(message)

    async def _pump(self) -> None:
        """Read Twilio's messages until the call or the connection ends."""
        ending: Mapping[str, Any] = _LOST
        with suppress(OSError, RuntimeError):  # the connection broke, so the call counts as lost
            while (received := await self._socket.receive())["type"] != "websocket.disconnect":
                text = received.get("text")
                going_on = await self._take(text if text is not None else received.get("bytes") or b"")
                if self._shortcut:
                    self._shortcut.answered()
                if not going_on:
                    ending = _ENDED
                    break
        await self._submit(ending)

    async def _take(self, text: str | bytes) -> bool:
        """Handle a message of Twilio. Return False if it ends the call."""
        try:
            message = twilio.read_message(text)
        except CallerError as fault:
            self._malformed += 1
            logger.warning("a message of Twilio is malformed: %s", fault)
            if self._malformed < MAX_MALFORMED:
                return True
            self._close_with = CLOSE_POLICY, "malformed messages"
            return False
        match message:
            case twilio.CallerMedia(audio=audio):
                await self._carry_out(self._call.caller_audio(audio))
            case twilio.MarkReturned(mark=mark):
                await self._carry_out(self._call.played(mark, self._now))
            case twilio.KeyPressed(digit=digit):
                await self._carry_out(self._call.key_pressed(digit))
            case twilio.StreamStopped():
                self._close_with = CLOSE_NORMAL, "the call has ended"
                return False
        return True

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._carry_out(self._call.tick(self._now))

    async def _carry_out(self, commands: Iterable[PhoneCommand]) -> None:
        stream = self._start.stream
        for command in commands:
            match command:
                case ToSession(event=event):
                    await self._submit({"type": "websocket.receive", "text": json.dumps(event)})
                case PlayAudio(audio=audio, mark=mark):
                    await self._socket.send_text(twilio.media_message(stream, audio))
                    await self._socket.send_text(twilio.mark_message(stream, mark))
                case DropAudio():
                    await self._socket.send_text(twilio.clear_message(stream))
                case EndCall():
                    self._close_with = CLOSE_NORMAL, AGENT_ENDED
                    await self._submit(_ENDED | {"reason": AGENT_ENDED})
                case _:
                    self._spawn(self._hand_over(command.transfer))

    async def _hand_over(self, transfer: Transfer) -> None:
        result = "Transfers are not possible."
        if self._webhook:
            result = await self._webhook.transfer(transfer, self._start.call, self._caller)
        await self._carry_out(self._call.transferred(transfer, result))
