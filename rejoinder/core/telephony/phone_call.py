"""A telephone call as a client of the Realtime API: which events it sends, and what the telephone plays.

`PhoneCall` gets the server's events and what happens on the telephone, and returns commands. It does no I/O, so one
class serves Twilio within a session host and Asterisk in front of the public WebSocket.

- The session speaks mu-law at 8 kHz in both directions. Audio passes through unchanged.
- The server sends audio at most `conversation.playout_lead_ms` ahead of real time, and so does the call.
- When the caller speaks, or a reply is cancelled, the telephone drops its audio. The session is told by
  `conversation.item.truncate` what the caller has heard, by the marks that came back.
- A press of a key goes to the session as `rejoinder.dtmf`.
- The agent hangs up when its goodbye was played, unless the caller speaks before.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from rejoinder.core.telephony.phone_playout import PhonePlayout, PlayedItem
from rejoinder.core.telephony.phone_tools import HANG_UP, TRANSFER, PhoneProfile, Transfer, read_transfer
from rejoinder.core.wire.fields import Json

KEPT_PIECES = 100
"""Pieces of the caller's audio that are kept until the session has begun: 2 s of Twilio's 20 ms."""
GOODBYE_S = 15.0
"""Seconds after the goodbye's response until the call ends, even if the telephone returns no mark."""


@dataclass(frozen=True, slots=True)
class ToSession:
    """Command: send a client event to the session."""

    event: Json


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Command: have the telephone play mu-law audio (8 kHz), and return the name `mark` when it has played it."""

    audio: bytes
    mark: str


@dataclass(frozen=True, slots=True)
class DropAudio:
    """Command: let the telephone drop the audio that it has not played."""


@dataclass(frozen=True, slots=True)
class StartTransfer:
    """Command: hand the caller over, and report the result to `PhoneCall.transferred`."""

    transfer: Transfer


@dataclass(frozen=True, slots=True)
class EndCall:
    """Command: hang up."""


PhoneCommand = ToSession | PlayAudio | DropAudio | StartTransfer | EndCall


class PhoneCall:
    """One telephone call. Times are monotonic seconds.

    Attributes:
        ended: True once `EndCall` was returned.
    """

    def __init__(self, profile: PhoneProfile, *, resumed: bool = False) -> None:
        """Create a call. If it is `resumed`, its session keeps its settings, so they are not sent."""
        self.ended = False
        self._profile = profile
        self._resumed = resumed
        self._ready = False
        self._early: deque[bytes] = deque(maxlen=KEPT_PIECES)
        self._playout = PhonePlayout()
        self._responding = False
        # Set when a tool has a result: the next response begins when the running one has ended.
        self._answer_due = False
        # Id of the function call that asks to hang up, and the time at which the call ends in any case.
        self._hang_up = ""
        self._end_at: float | None = None

    @property
    def ready(self) -> bool:
        """True once the session has begun, so that it may get audio."""
        return self._ready

    def heard(self, now: float) -> PlayedItem:
        """Return how much of the item that was played last the caller has heard."""
        return self._playout.heard(now)

    def received(self) -> PlayedItem:
        """Return how much of the newest item the telephone has got: it has played it, or will still play it."""
        return self._playout.received()

    def reconnected(self) -> None:
        """Record that the connection to the session was lost. No response is running on the next one."""
        self._responding = False

    # -- the telephone -------------------------------------------------------------------------------------------------

    def caller_audio(self, audio: bytes) -> list[PhoneCommand]:
        """Handle the caller's audio (mu-law)."""
        if self._ready:
            return [_append(audio)]
        self._early.append(audio)
        return []

    def key_pressed(self, digit: str) -> list[PhoneCommand]:
        """Handle a press of a key: 0 to 9, *, # or A to D."""
        return [ToSession({"type": "rejoinder.dtmf", "digit": digit})] if self._ready else []

    def played(self, mark: str, now: float) -> list[PhoneCommand]:
        """Handle a mark that the telephone returns."""
        self._playout.returned(mark, now)
        return self.tick(now)

    def tick(self, now: float) -> list[PhoneCommand]:
        """Return what is due at `now`. Call this twice a second."""
        said = not self._playout.pending
        if not self.ended and self._end_at is not None and (said or now >= self._end_at):
            self.ended = True
            return [EndCall()]
        return []

    def transferred(self, transfer: Transfer, result: str) -> list[PhoneCommand]:
        """Handle the result of a transfer, in words for the model."""
        self._answer_due = True
        return [_result(transfer.tool_call, result), *self._answer()]

    # -- the session ---------------------------------------------------------------------------------------------------

    def server_event(self, event: Json, now: float) -> list[PhoneCommand]:
        """Handle an event of the server. Audio may be bytes or base64."""
        handle = self._HANDLERS.get(event.get("type", ""))
        return list(handle(self, event, now)) if handle and not self.ended else []

    def _created(self, _: Json, now: float) -> Iterator[PhoneCommand]:
        if self._ready:
            return
        self._ready = True
        if not self._resumed:
            wire = {"format": {"type": "audio/pcmu"}}
            session: Json = {"type": "realtime", "output_modalities": ["audio"]}
            session["audio"] = {"input": wire, "output": wire}
            if self._profile.instructions:
                session["instructions"] = self._profile.instructions
            if tools := self._profile.tools():
                session["tools"] = tools
            yield ToSession({"type": "session.update", "session": session})
        while self._early:
            yield _append(self._early.popleft())

    def _continued(self, event: Json, now: float) -> Iterator[PhoneCommand]:
        # A response that the server makes by itself answers the tool, too.
        self._answer_due = self._answer_due and not event.get("response")
        yield from self._answer()

    def _audio(self, event: Json, now: float) -> Iterator[PhoneCommand]:
        delta = event["delta"]
        audio = delta if isinstance(delta, bytes) else base64.b64decode(delta)
        yield PlayAudio(audio, self._playout.sent(str(event["item_id"]), len(audio), now))

    def _speech_started(self, _: Json, now: float) -> Iterator[PhoneCommand]:
        if self._hang_up:
            yield _result(self._hang_up, "The caller went on speaking, so the call was not ended.")
            self._hang_up, self._end_at = "", None
        yield from self._flush(now)

    def _flush(self, now: float) -> Iterator[PhoneCommand]:
        """Drop what the telephone has not played, and tell the session what the caller has heard."""
        if not self._playout.pending:
            return
        yield DropAudio()
        for item in self._playout.cut(now):
            fields = {"item_id": item.item_id, "content_index": 0, "audio_end_ms": item.ms}
            yield ToSession({"type": "conversation.item.truncate", **fields})

    def _response_created(self, _: Json, now: float) -> tuple[PhoneCommand, ...]:
        self._responding = True
        return ()

    def _response_done(self, event: Json, now: float) -> Iterator[PhoneCommand]:
        self._responding = False
        if event["response"].get("status") == "cancelled":
            yield from self._flush(now)
        if self._hang_up and self._end_at is None:
            self._end_at = now + GOODBYE_S
            yield from self.tick(now)
        yield from self._answer()

    def _item_done(self, event: Json, now: float) -> Iterator[PhoneCommand]:
        item = event["item"]
        if item.get("type") != "function_call":
            return
        name, tool_call = item.get("name"), str(item.get("call_id", ""))
        if name == HANG_UP and self._profile.hang_up:
            self._hang_up = tool_call
        elif name == TRANSFER and (transfer := read_transfer(self._profile, item)):
            yield StartTransfer(transfer)
        else:
            names = ", ".join(self._profile.destinations)
            self._answer_due = True
            yield _result(tool_call, f"This is not possible. Destinations: {names or 'none'}.")

    def _answer(self) -> Iterator[PhoneCommand]:
        """Ask for the response to the result of a tool, unless a response is running."""
        if self._answer_due and self._ready and not self._responding:
            self._answer_due = False
            yield ToSession({"type": "response.create"})

    _HANDLERS: ClassVar[dict[str, Callable[[PhoneCall, Json, float], Iterable[PhoneCommand]]]] = {
        "session.created": _created,
        "rejoinder.session.resumed": _continued,
        "response.output_audio.delta": _audio,
        "input_audio_buffer.speech_started": _speech_started,
        "response.created": _response_created,
        "response.done": _response_done,
        "response.output_item.done": _item_done,
    }


def _append(audio: bytes) -> ToSession:
    return ToSession({"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()})


def _result(tool_call: str, output: str) -> ToSession:
    item = {"type": "function_call_output", "call_id": tool_call, "output": output}
    return ToSession({"type": "conversation.item.create", "item": item})
