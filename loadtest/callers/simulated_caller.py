"""A simulated caller as a pure state machine: the pacer requests frames, the socket delivers events.

A caller runs in real time. It speaks a whole utterance, waits for the answer, listens to its end or interrupts it,
pauses, and speaks again, until its call ends.

    WAITING --think time--> SPEAKING --last frame--> AWAITING --reply played, cut or timed out--> WAITING

The edge is the server's end of the emulated network. Caller and edge are separated by the network's constant delays,
`up` and `down`. A sample that the caller speaks at t reaches the edge at t + up. A message that the edge sends at t
reaches the caller at t + down. Deadlines of frames are times at the edge. The caller therefore speaks a frame at its
deadline minus the upstream delay.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import orjson

from loadtest.callers.playout_buffer import BufferedReply, PlayoutBuffer
from loadtest.callers.resume_state import MOVE, Position, ResumeState
from loadtest.callers.turn_outcomes import OpenTurn, TurnOutcomes
from loadtest.scenario.network import NetworkPath, Uplink
from loadtest.scenario.scenario import CallerBehavior
from loadtest.scenario.schedule import Call, TurnPlan
from loadtest.scenario.utterances import FRAME_S, Speech

LEAD_IN_S = 0.4
"""Silence before the first utterance, in seconds. A real microphone is open before its user speaks, and detectors adapt
to the silence."""

FIRST_TURN_SPREAD_S = 5.0
"""Typical length of an utterance with its answer, in seconds. Each caller delays its first turn by a random share of
one cycle: this time plus the think time. Without the delay, calls that start together would speak at the same time."""

PREMATURE_S = 0.25
"""An utterance is premature if the server ended it more than this number of seconds before the last sample of
speech."""


PADDING_S = 0.3
"""Padding, in seconds, by which the server begins speech before its first sample (`prefix_padding_ms`)."""


class CallPhase(Enum):
    """Phase of a simulated call.

    Attributes:
        WAITING: The caller pauses before its next utterance.
        SPEAKING: The caller sends an utterance.
        AWAITING: The utterance was sent. The caller waits for the reply or listens to it.
        OVER: The call has ended.
    """

    WAITING = "waiting"
    SPEAKING = "speaking"
    AWAITING = "awaiting"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SharedCallerSettings:
    """Speech, settings and recorder that all callers of a process share.

    Attributes:
        speech: The encoded utterances.
        behavior: How the callers behave.
        outcomes: Recorder of the outcomes and latencies of finished turns.
        playout_buffer_s: Audio that a caller's player buffers before playback starts, in seconds.
        last_turn_at: Time after which no turn starts, in seconds on the monotonic clock.
    """

    speech: Speech
    behavior: CallerBehavior
    outcomes: TurnOutcomes
    playout_buffer_s: float
    last_turn_at: float


class SimulatedCaller:
    """A caller of a load run. All times are in seconds on the monotonic clock of the process.

    Call `leaving` at every deadline and `take` for every message, until `over`.

    Attributes:
        call: The call's entry in the schedule.
        path: Emulated network of the call.
        phase: Current phase.
        ends_at: Time at which the call ends. No turn starts after it.
        resumption: What the call needs to continue on another connection.
        moving: True if the server has asked the caller to connect again.
        faults: How often each fault occurred in the call, in words.
    """

    def __init__(
        self,
        call: Call,
        path: NetworkPath,
        shared: SharedCallerSettings,
        send: Callable[[bytes], None],
        *,
        began_at: float,
    ) -> None:
        """Create a caller.

        Args:
            call: The call's entry in the schedule.
            path: Emulated network of the call.
            shared: Speech, settings and recorder of all callers of the process.
            send: Function that sends an event at once, outside the pacing of audio frames.
            began_at: Time at which the call starts.
        """
        self.call = call
        self.path = path
        self.phase = CallPhase.WAITING
        self.ends_at = began_at + (call.ends_s - call.at_s)
        self.resumption = ResumeState()
        self.moving = False
        self.faults: Counter[str] = Counter()
        self._shared = shared
        self._send = send
        self._player = PlayoutBuffer(shared.speech.wire, shared.playout_buffer_s)
        self._draw = random.Random(call.seed)
        self._frames = 0
        self._frames_due = 0
        self._number = 0
        self._plan = self._next_plan()
        self._next_at = began_at + LEAD_IN_S + (FIRST_TURN_SPREAD_S + self._plan.think_s) * self._draw.random()
        self._turn: OpenTurn | None = None
        self._interrupted: OpenTurn | None = None
        self._replies: dict[str, BufferedReply] = {}
        self._continues: BufferedReply | None = None
        self._lost_at = began_at
        self._newest_arrival = began_at
        self._delayed_events: deque[tuple[float, bytes]] = deque()
        self._uplink = Uplink(path)

    def take_frames_due(self) -> int:
        """Return the number of frames that became due since the last call of this method."""
        count, self._frames_due = self._frames_due, 0
        return count

    @property
    def over(self) -> bool:
        """True if the call has ended."""
        return self.phase is CallPhase.OVER

    # -- sending audio to the server -------------------------------------------------------------------------------

    def leaving(self, due: float) -> Sequence[bytes]:
        """Return the messages to send at the deadline `due`, in seconds at the server's end of the emulated network.

        Without jitter and loss, this is one frame, or none while the caller is muted. Jitter and loss hold frames back,
        so a later deadline may have several.
        """
        messages = self._uplink.leaving(self._frame(due), due)
        self._frames_due += len(messages)
        for message in messages:
            self.resumption.sent(message)
        while self._delayed_events and self._delayed_events[0][0] <= due:
            self._send(self._delayed_events.popleft()[1])
        return messages

    def hold(self, due: float) -> None:
        """Keep the messages of the deadline `due`, in seconds, while there is no connection. The caller speaks on."""
        for message in self._uplink.leaving(self._frame(due), due):
            self.resumption.sent(message)

    # -- continuing on another connection --------------------------------------------------------------------------

    def position(self) -> Position | None:
        """Return how much of the newest reply the caller has. None without a reply."""
        reply = next(reversed(self._replies.values()), None)
        return None if reply is None else reply.position(reply.received_s)

    def reconnect(self, send: Callable[[bytes], None], event: dict[str, Any], *, lost_at: float, now: float) -> None:
        """Continue the call on another connection, on which the server has confirmed the session.

        Args:
            send: Function that sends an event on the connection.
            event: The event `rejoinder.session.resumed`.
            lost_at: Time at which the connection before was lost.
            now: Current time.
        """
        self._send, self._lost_at, self.moving = send, lost_at, False
        kind = (event.get("response") or {}).get("kind")
        if kind == "continued":
            self._continues = next(reversed(self._replies.values()), None)
        if kind and self._turn and self.phase is CallPhase.AWAITING and self._turn.detected_whole is None:
            self._turn.detected_whole = True  # the event that says so was lost with the connection
        for message in self.resumption.resend(event):
            send(message)
        self._shared.outcomes.record_resumed(lost_at, now)

    # -- the frames of the caller ----------------------------------------------------------------------------------

    def _frame(self, due: float) -> bytes | None:
        """Return the next 20 ms of the caller's audio as a message, or None while the caller is muted.

        `due` is the time, in seconds of the monotonic clock, at which the frame must reach the server's end of the
        emulated network. The call first moves to the phase that applies at that time minus the upstream delay.
        """
        now = due - self.path.up_s
        self._advance(now)
        turn = self._turn
        message = self._shared.speech.quiet(self._frames)
        if self.phase is CallPhase.SPEAKING and turn:
            message = turn.utterance.messages[turn.sent_frames]
            turn.sent_frames += 1
            if turn.sent_frames == len(turn.utterance.messages):
                self.phase = CallPhase.AWAITING
        elif self._muted(turn, now):
            return None
        self._frames += 1
        return message

    def _muted(self, turn: OpenTurn | None, now: float) -> bool:
        """Return True if the caller sends no audio at `now`, in seconds on the monotonic clock.

        If the scenario sets `muted_between_turns`, audio is sent only from the start of an utterance to the first
        audible sample of its answer.
        """
        if not self._shared.behavior.muted_between_turns:
            return False
        if self.call.listener:
            return True
        return self.phase is not CallPhase.AWAITING or (turn is not None and turn.answered(now))

    # -- changing the phase of the call ----------------------------------------------------------------------------

    def hang_up(self, now: float, *, dropped: bool) -> None:
        """End the call and record the turn in progress.

        Args:
            now: Time at which the call ends, in seconds on the monotonic clock.
            dropped: True if the server ended the call. The turn in progress then is unanswered, or failed if its reply
                was playing.
        """
        self._close_interrupted()
        if self._turn and self.phase in (CallPhase.SPEAKING, CallPhase.AWAITING):
            if self._turn.reply and not dropped:
                self._turn.reply.hang_up(now)
            self._close(self._turn)
        self.phase = CallPhase.OVER

    def _advance(self, now: float) -> None:
        """Move to the next phase if it is due: start a turn, stop waiting for a reply, or end the call.

        `now` is the caller's time in seconds on the monotonic clock.
        """
        if self.phase is CallPhase.AWAITING and self._turn:
            self._advance_awaiting(self._turn, now)
        if self.phase is CallPhase.WAITING:
            if now >= min(self.ends_at, self._shared.last_turn_at):
                self._close_interrupted()
                self.phase = CallPhase.OVER
            elif now >= self._next_at and not self.call.listener:
                self._speak(now)

    def _advance_awaiting(self, turn: OpenTurn, now: float) -> None:
        """End the phase AWAITING if its time has come.

        This is when the reply is over or has timed out, or when the caller is due to interrupt it or to hang up.
        """
        reply = turn.reply
        if self.call.hangs_up and now >= self.ends_at:
            self._end_call(turn, now)
            return
        plan = self._plan
        if reply and reply.began_at is not None and plan.barge_in_s is not None and reply.playing(now):
            if now >= reply.began_at + plan.barge_in_s:
                self._close_interrupted()
                self._interrupted = turn
                self._plan_next_turn(turn, now, think=False)
            return
        over_at = reply.over_at if reply else None
        if over_at is not None and over_at <= now:
            self._close(turn)
            self._plan_next_turn(turn, over_at, think=True)
        elif now >= max(turn.speech_ends, reply.ends_at if reply else 0.0) + self._shared.behavior.answer_timeout_s:
            self._close(turn)
            self._plan_next_turn(turn, now, think=True)

    def _end_call(self, turn: OpenTurn, now: float) -> None:
        """Hang up within a turn.

        If the answer is audible, the turn is recorded. Otherwise its latency is unknown, so it is only counted as
        abandoned.
        """
        self._close_interrupted()
        if turn.reply and turn.answered(now):
            turn.reply.hang_up(now)
            self._close(turn)
        else:
            self._shared.outcomes.count_abandoned(turn)
        self.phase = CallPhase.OVER

    def _plan_next_turn(self, turn: OpenTurn, at: float, *, think: bool) -> None:
        """Enter the phase WAITING and plan the next turn.

        Args:
            turn: The turn that ends or is interrupted.
            at: Time at which it ends or is interrupted.
            think: True if the next turn starts one think time after `at`, false if it starts at `at` as an
                interruption.
        """
        self._turn = None if think else turn
        self.phase = CallPhase.WAITING
        self._plan = self._next_plan()
        self._next_at = at + (self._plan.think_s if think else 0.0)

    def _speak(self, now: float) -> None:
        utterance = self._shared.speech.utterances[self._plan.clip]
        self._turn = OpenTurn(self._number, utterance, now, self._frames)
        self.phase = CallPhase.SPEAKING

    def _close_interrupted(self) -> None:
        """Record the turn whose reply the caller interrupted, if it has not been recorded yet."""
        interrupted, self._interrupted = self._interrupted, None
        if interrupted:
            reply, turn = interrupted.reply, self._turn
            if reply and reply.over_at is not None and reply.cut_at is None and turn and turn is not interrupted:
                self._shared.outcomes.count_unyielded(reply.over_at - turn.speech_begins, turn, self.path)
            self._close(interrupted)

    def _close(self, turn: OpenTurn) -> None:
        self._close_interrupted()
        self.faults.update(self._shared.outcomes.close(turn, self.call, self.path))

    def _next_plan(self) -> TurnPlan:
        """Increase the number of the turn by 1, and return the plan of the turn with this number."""
        self._number += 1
        return self.call.turn(self._number, self._shared.behavior, len(self._shared.speech.utterances))

    # -- handling events from the server ---------------------------------------------------------------------------

    def take(self, message: bytes, arrived: float) -> None:
        """Handle a server event.

        Args:
            message: The event as JSON.
            arrived: Time at which the event arrived at the server's end of the emulated network. This method adds the
                network's delay, jitter and loss.
        """
        # TCP delivers in order, so no event reaches the caller before an earlier event.
        now = self._newest_arrival = max(self._newest_arrival, arrived + self.path.down_s + self.path.late_s())
        event = orjson.loads(message)
        self.resumption.take(event)
        handler = self._HANDLERS.get(event.get("type"))
        if handler:
            handler(self, event, now)

    def _on_created(self, event: dict[str, Any], now: float) -> None:
        turn, reply = self._turn, self._continues
        if reply is not None:
            reply.continue_as(event["response"]["id"], "")
            self._continues, self._replies = None, {reply.key: reply}
            return
        reply = BufferedReply(event["response"]["id"])
        self._replies = {reply.key: reply}
        if turn is None or turn.detected_whole is None:
            return  # the response answers an earlier turn
        if turn.detected_whole:
            turn.reply = reply
        else:
            turn.premature += 1

    def _on_audio(self, event: dict[str, Any], now: float) -> None:
        reply = self._replies.get(event["response_id"])
        if reply:
            if reply.continued and not reply.item_id:
                self._shared.outcomes.record_gap(now - max(reply.ends_at, self._lost_at))
            reply.item_id = event["item_id"]
            self._player.play(reply, event["delta"], now)

    def _on_done(self, event: dict[str, Any], now: float) -> None:
        response = event["response"]
        self._shared.outcomes.count_response(now, failed=response["status"] == "failed")
        if response["status"] == "failed":
            self._shared.outcomes.count_error(_failure(response))
        reply = self._replies.get(response["id"])
        if reply:
            reply.done_at, reply.status, reply.report = now, response["status"], event.get("rejoinder")
            if response["status"] == "cancelled" and reply.cut_at is None and reply.began_at is not None:
                reply.cut_at = now
            if self._interrupted and self._interrupted.reply is reply:
                self._close_interrupted()

    def _on_started(self, event: dict[str, Any], now: float) -> None:
        """Stop playback, as a real client does when the server detects speech.

        Also tell the server how much of the reply was played.
        """
        for reply in self._replies.values():
            if reply.playing(now):
                # Delay the truncation event, which reaches the server after the upstream delay.
                self._delayed_events.append((now + self.path.up_s, truncate(reply, now)))
                reply.cut(now)
                if self._interrupted and self._interrupted.reply is reply and self._turn:
                    self._shared.outcomes.record_stop(now - self._turn.speech_begins, self._turn, self.path)
                elif self._silent_at(event["audio_start_ms"] / 1000):
                    self.faults["a reply stopped for nothing"] += self._shared.outcomes.count_false_interruption(now)

    def _silent_at(self, position_s: float) -> bool:
        """Return True if the caller did not speak at a position of the call's audio, in seconds, nor speaks now.

        The server puts the start of speech up to PADDING_S too early.
        """
        if self.phase is CallPhase.SPEAKING:
            return False
        turn = self._turn
        return turn is None or position_s >= turn.first_frame * FRAME_S + turn.utterance.speech_end_s - PADDING_S

    def _on_stopped(self, event: dict[str, Any], now: float) -> None:
        turn = self._turn
        if turn:
            ends_s = event["audio_end_ms"] / 1000 - turn.first_frame * FRAME_S
            if ends_s > 0:
                turn.detected_whole = ends_s >= turn.utterance.speech_end_s - PREMATURE_S

    def _on_move(self, event: dict[str, Any], now: float) -> None:
        self.moving = True

    def _on_error(self, event: dict[str, Any], now: float) -> None:
        self._shared.outcomes.count_error(str(event.get("error", {}).get("code")))

    _HANDLERS: ClassVar[dict[str, Callable[[SimulatedCaller, dict[str, Any], float], None]]] = {
        "response.created": _on_created,
        "response.output_audio.delta": _on_audio,
        "response.done": _on_done,
        "input_audio_buffer.speech_started": _on_started,
        "input_audio_buffer.speech_stopped": _on_stopped,
        "error": _on_error,
        MOVE: _on_move,
    }


def _failure(response: dict[str, Any]) -> str:
    """Return the error code of a failed response, or the kind of its failure if it has none."""
    details = response.get("status_details") or {}
    return str((details.get("error") or {}).get("code") or details.get("reason") or "failed")


def truncate(reply: BufferedReply, now: float) -> bytes:
    """Return the event, as JSON, that tells the server how many milliseconds of the reply were played.

    They are counted up to `now`, in seconds on the caller's clock.
    """
    played_ms = reply.position(reply.played_s(now)).ms
    event = {"type": "conversation.item.truncate", "item_id": reply.item_id, "content_index": 0}
    return orjson.dumps(event | {"audio_end_ms": played_ms})
