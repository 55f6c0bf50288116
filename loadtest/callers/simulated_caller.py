"""One simulated caller, without input or output: the pacer asks for frames, the socket brings events.

A caller lives in real time. It speaks a whole utterance, waits for the answer, hears it out or speaks over it, thinks,
and speaks again, until its call ends. Two clocks differ by the network's constant delay: a sample that the caller
utters at t reaches the edge at t + up, and what the edge sends at t is heard at t + down. Frames are paced at the edge,
so an utterance's instants are its frames' deadlines less the way up.

    WAITING --think--> SPEAKING --last frame--> AWAITING --reply heard, cut or too late--> WAITING
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import orjson

from loadtest.callers.playout_buffer import BufferedReply, PlayoutBuffer
from loadtest.callers.turn_outcomes import OpenTurn, TurnOutcomes
from loadtest.scenario.network import NetworkPath, Uplink
from loadtest.scenario.scenario import CallerBehavior
from loadtest.scenario.schedule import Call, TurnPlan
from loadtest.scenario.utterances import FRAME_S, Speech

LEAD_IN_S = 0.4
"""A microphone is open before somebody speaks, and detectors settle on it."""

FIRST_TURN_SPREAD_S = 5.0
"""Callers whose calls begin together do not speak together: each begins somewhere in its cycle, which is its think time
and about so long for an utterance with its answer."""

PREMATURE_S = 0.25
"""An utterance that the server ended so much before its true end was a pause that it took for the end."""


class CallPhase(Enum):
    WAITING = "waiting"
    SPEAKING = "speaking"
    AWAITING = "awaiting"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SharedCallerSettings:
    """What all callers of a run share."""

    speech: Speech
    behavior: CallerBehavior
    outcomes: TurnOutcomes
    playout_buffer_s: float
    last_turn_at: float


class SimulatedCaller:
    """`frame` at every deadline, `take` for every message, until `over`. All instants are one monotonic clock's."""

    def __init__(
        self,
        call: Call,
        path: NetworkPath,
        habits: SharedCallerSettings,
        send: Callable[[bytes], None],
        *,
        began_at: float,
    ) -> None:
        self.call = call
        self.path = path
        self.phase = CallPhase.WAITING
        self.ends_at = began_at + (call.ends_s - call.at_s)
        self._shared = habits
        self._send = send
        self._player = PlayoutBuffer(habits.speech.wire, habits.playout_buffer_s)
        self._draw = random.Random(call.seed)
        self._frames = 0
        self._scheduled = 0
        self._number = 0
        self._plan = self._next_plan()
        self._next_at = began_at + LEAD_IN_S + (FIRST_TURN_SPREAD_S + self._plan.think_s) * self._draw.random()
        self._turn: OpenTurn | None = None
        self._interrupted: OpenTurn | None = None
        self._replies: dict[str, BufferedReply] = {}
        self._heard_at = began_at
        self._notes: deque[tuple[float, bytes]] = deque()
        self._uplink = Uplink(path)

    def take_scheduled(self) -> int:
        """How many frames were due since this was last asked."""
        count, self._scheduled = self._scheduled, 0
        return count

    @property
    def over(self) -> bool:
        return self.phase is CallPhase.OVER

    # -- the mouth -------------------------------------------------------------------------------------------------

    def leaving(self, due: float) -> Sequence[bytes]:
        """The messages that leave at this deadline: this frame, and on an unsteady route those that were held back."""
        gone = self._uplink.leaving(self._frame(due), due)
        self._scheduled += len(gone)
        while self._notes and self._notes[0][0] <= due:
            self._send(self._notes.popleft()[1])
        return gone

    def _frame(self, due: float) -> bytes | None:
        """This deadline's frame; None while the caller is muted."""
        now = due - self.path.up_s
        self._live(now)
        turn = self._turn
        message = self._shared.speech.silence
        if self.phase is CallPhase.SPEAKING and turn:
            message = turn.utterance.messages[turn.spoken]
            turn.spoken += 1
            if turn.spoken == len(turn.utterance.messages):
                self.phase = CallPhase.AWAITING
        elif self._muted(turn, now):
            return None
        self._frames += 1
        return message

    def _muted(self, turn: OpenTurn | None, now: float) -> bool:
        """Whether this client sends nothing now: it does between the answer's first sound and its next words."""
        if not self._shared.behavior.muted_between_turns:
            return False
        if self.call.listener:
            return True
        return self.phase is not CallPhase.AWAITING or (turn is not None and turn.answered(now))

    # -- living ----------------------------------------------------------------------------------------------------

    def hang_up(self, now: float, *, dropped: bool) -> None:
        """The line is gone. If the server `dropped` it, a turn under way was never answered, or its answer failed."""
        self._settle()
        if self._turn and self.phase in (CallPhase.SPEAKING, CallPhase.AWAITING):
            if self._turn.reply and not dropped:
                self._turn.reply.leave(now)
            self._close(self._turn)
        self.phase = CallPhase.OVER

    def _live(self, now: float) -> None:
        if self.phase is CallPhase.AWAITING and self._turn:
            self._await(self._turn, now)
        if self.phase is CallPhase.WAITING:
            if now >= min(self.ends_at, self._shared.last_turn_at):
                self._settle()
                self.phase = CallPhase.OVER
            elif now >= self._next_at and not self.call.listener:
                self._speak(now)

    def _await(self, turn: OpenTurn, now: float) -> None:
        reply = turn.reply
        if self.call.hangs_up and now >= self.ends_at:
            self._quit(turn, now)
            return
        plan = self._plan
        if reply and reply.began_at is not None and plan.barge_in_s is not None and reply.sounds(now):
            if now >= reply.began_at + plan.barge_in_s:
                self._settle()
                self._interrupted = turn
                self._after(turn, now, think=False)
            return
        over_at = reply.over_at if reply else None
        if over_at is not None and over_at <= now:
            self._close(turn)
            self._after(turn, over_at, think=True)
        elif now >= max(turn.speech_ends, reply.ends_at if reply else 0.0) + self._shared.behavior.answer_timeout_s:
            self._close(turn)
            self._after(turn, now, think=True)

    def _quit(self, turn: OpenTurn, now: float) -> None:
        """The caller hangs up, on the answer or before it: what it would have taken is not known then."""
        self._settle()
        if turn.reply and turn.answered(now):
            turn.reply.leave(now)
            self._close(turn)
        else:
            self._shared.outcomes.abandoned(turn)
        self.phase = CallPhase.OVER

    def _after(self, turn: OpenTurn, at: float, *, think: bool) -> None:
        self._turn = None if think else turn
        self.phase = CallPhase.WAITING
        self._plan = self._next_plan()
        self._next_at = at + (self._plan.think_s if think else 0.0)

    def _speak(self, now: float) -> None:
        utterance = self._shared.speech.utterances[self._plan.clip]
        self._turn = OpenTurn(self._number, utterance, now, self._frames)
        self.phase = CallPhase.SPEAKING

    def _settle(self) -> None:
        """Whatever came of the interruption before: the interrupted turn is over."""
        interrupted, self._interrupted = self._interrupted, None
        if interrupted:
            self._close(interrupted)

    def _close(self, turn: OpenTurn) -> None:
        self._settle()
        self._shared.outcomes.close(turn, self.call, self.path)

    def _next_plan(self) -> TurnPlan:
        self._number += 1
        return self.call.turn(self._number, self._shared.behavior, len(self._shared.speech.utterances))

    # -- the ear ---------------------------------------------------------------------------------------------------

    def take(self, message: bytes, arrived: float) -> None:
        """A server event arrived at the edge's end of the route."""
        heard = self._heard_at = max(self._heard_at, arrived + self.path.down_s + self.path.late_s())
        event = orjson.loads(message)
        handler = self._HANDLERS.get(event.get("type"))
        if handler:
            handler(self, event, heard)

    def _created(self, event: dict[str, Any], heard: float) -> None:
        turn = self._turn
        reply = BufferedReply(event["response"]["id"])
        self._replies = {reply.key: reply}
        if turn is None or turn.finished is None:
            return  # an answer to an earlier turn, too late
        if turn.finished:
            turn.reply = reply
        else:
            turn.premature += 1

    def _audio(self, event: dict[str, Any], heard: float) -> None:
        reply = self._replies.get(event["response_id"])
        if reply:
            reply.item_id = event["item_id"]
            self._player.play(reply, event["delta"], heard)

    def _done(self, event: dict[str, Any], heard: float) -> None:
        response = event["response"]
        reply = self._replies.get(response["id"])
        if reply:
            reply.done_at, reply.status, reply.report = heard, response["status"], event.get("rejoinder")
            if response["status"] == "cancelled" and reply.cut_at is None and reply.began_at is not None:
                reply.cut_at = heard
            if self._interrupted and self._interrupted.reply is reply:
                self._settle()

    def _started(self, event: dict[str, Any], heard: float) -> None:
        """The server heard the caller: a real client silences its loudspeaker and says how much was heard."""
        for reply in self._replies.values():
            if reply.sounds(heard):
                # It goes the way up too: the edge has it so much later.
                self._notes.append((heard + self.path.up_s, truncate(reply, heard)))
                reply.cut(heard)
                if self._interrupted and self._interrupted.reply is reply and self._turn:
                    self._shared.outcomes.stopped(heard - self._turn.speech_begins, self._turn)

    def _stopped(self, event: dict[str, Any], heard: float) -> None:
        turn = self._turn
        if turn:
            ends_s = event["audio_end_ms"] / 1000 - turn.first_frame * FRAME_S
            if ends_s > 0:
                turn.finished = ends_s >= turn.utterance.speech_end_s - PREMATURE_S

    def _fault(self, event: dict[str, Any], heard: float) -> None:
        self._shared.outcomes.fault(str(event.get("error", {}).get("code")))

    _HANDLERS: ClassVar[dict[str, Callable[[SimulatedCaller, dict[str, Any], float], None]]] = {
        "response.created": _created,
        "response.output_audio.delta": _audio,
        "response.done": _done,
        "input_audio_buffer.speech_started": _started,
        "input_audio_buffer.speech_stopped": _stopped,
        "error": _fault,
    }


def truncate(reply: BufferedReply, now: float) -> bytes:
    """What a client tells the server about a reply that it silenced: how much of it was heard."""
    heard_ms = int(reply.heard_s(now) * 1000)
    event = {"type": "conversation.item.truncate", "item_id": reply.item_id, "content_index": 0}
    return orjson.dumps(event | {"audio_end_ms": heard_ms})
