"""Effect of barge-in on the reply: the part of the turn machine that pauses, resumes or cancels it.

The first speech over a reply pauses the reply (`PauseReply`), because a pause can be undone. Then the words of the
utterance are checked (`barge_in`). If words are addressed to the agent, the utterance passes the check, and the reply
is cancelled (`CancelReply`). If the utterance ends without addressed words, it is dismissed (`DismissUtterance`), and
the reply is resumed from the last sample that was heard (`ResumeReply`).

`BargeInCheck` is the progress of the check:

    PENDING   addressed words          -> NOT_NEEDED  CancelReply. The utterance continues like any other.
    PENDING   no addressed words       -> REJECTED    resume_after_ms of silence will dismiss the utterance.
    PENDING   required silence passed  -> OVERDUE     The transcript will decide: end the turn, or dismiss.
    OVERDUE   addressed words          -> NOT_NEEDED  CancelReply, CommitTurn.
    OVERDUE   no addressed words       -> dismissed   DismissUtterance, ResumeReply.
    REJECTED  addressed words          -> NOT_NEEDED  A later transcript has addressed words: CancelReply.
    REJECTED  resume_after_ms passed   -> dismissed   DismissUtterance, ResumeReply.

If speech resumes after a tentative end, the check is PENDING again, because there is more to transcribe.

The setting `confirm_timeout_ms` limits how long a reply stays paused, in two cases:

- Noise without words continues for this time. The reply is resumed. Words that follow can still cancel it.
- The transcript is not known this long after the tentative end of speech. The reply is resumed. The utterance stays
  open, so that a slow speech-to-text stage does not cost the caller a turn.

The client learns of speech over a reply at once, and drops the audio that it has not played. For a client that would
drop the rest of the reply too (`TurnRules.announces_words`), the speech is announced only when the check is passed.

Some utterances are checked without a reply to pause: speech just after a reply, and speech over a reply that cannot be
interrupted. Such speech may be an echo of the reply, and an echo is not a turn. Speech that is fainter than the
caller's (`caller_level`) is checked too, because it may be that of a television or of other people.
"""

from __future__ import annotations

import math
from dataclasses import replace

from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.turns.commands import (
    AnnounceSpeech,
    CancelReply,
    CancelRevision,
    Command,
    DismissUtterance,
    PauseReply,
    ResumeReply,
    RevealSpeech,
    StartIdleTimer,
    WaitUntil,
)
from rejoinder.core.turns.endpointing import PauseStats
from rejoinder.core.turns.events import InterimReady
from rejoinder.core.turns.speech_detector import SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnRules, TurnState, TurnStep

CUT_PAUSE_S = 1.5
"""Longest silence in seconds between the end of speech and new speech of the caller that counts as a pause that was cut
off. A reaction to a reply takes longer: the reply must begin first, and the caller must understand it."""


def speech_started(state: TurnState, event: SpeechStarted | SpeechResumed, rules: TurnRules, now: float) -> TurnStep:
    """Open an utterance. If it interrupts a reply, pause the reply.

    The reply is cancelled instead if the session's rules do not allow pauses, or if another reply is queued.
    """
    faint = isinstance(event, SpeechStarted) and event.faint
    check = BargeInCheck.PENDING if faint or _needs_check(state, rules, now) else BargeInCheck.NOT_NEEDED
    state = replace(
        state,
        caller=CallerState.SPEAKING,
        start=event.at,
        required_silence_s=None,
        barge_in_check=check,
        unannounced=False,
        pauses=_with_cut_pause(state, event.at),
    )
    announce = AnnounceSpeech(event.at)
    if state.agent is AgentState.IDLE or not rules.detection.interrupt_response:
        return state, (announce,)
    if state.agent is AgentState.REPLYING and rules.pauses_replies and rules.announces_words:
        state = replace(state, agent=AgentState.PAUSED, reply_paused_at=now, unannounced=True)
        return state, (AnnounceSpeech(event.at, reveal=False), PauseReply(dropped=False))
    state, commands = pause_reply(state, rules, now)
    if not commands:
        state, commands = accept(state, rules)
    return state, (announce, *commands)


def _with_cut_pause(state: TurnState, start: int) -> PauseStats:
    """Return the caller's pauses, with one more if the last turn was probably cut off in a pause.

    A caller who speaks again within CUT_PAUSE_S of the end of speech has not reacted to a reply. The last turn was
    therefore cut off, and the longer pause makes later turns of this caller wait longer.

    Args:
        state: The state before the new speech.
        start: First sample of the new speech.
    """
    silence_s = (start - state.speech_end) / STT_RATE
    if not state.speech_end or not 0 < silence_s <= CUT_PAUSE_S:
        return state.pauses
    return state.pauses.with_pause(silence_s)


def _needs_check(state: TurnState, rules: TurnRules, now: float) -> bool:
    """Return True if speech that starts now needs a barge-in check, because it may be noise or an echo.

    If no reply is under way, only speech within `echo_tail_ms` after the last reply needs a check.
    """
    if state.agent is AgentState.IDLE:
        return rules.barge_in.echo_guard and now - state.reply_ended_at < rules.barge_in.echo_tail_ms / 1000
    return rules.pauses_replies or (rules.barge_in.echo_guard and not rules.detection.interrupt_response)


def too_short(state: TurnState, speech_end: int, rules: TurnRules) -> bool:
    """Return True if the utterance must pass the barge-in check, and is too short to be speech.

    Too short means that less than `min_speech_ms` lie between its start and sample `speech_end`.
    """
    return (
        state.barge_in_check is not BargeInCheck.NOT_NEEDED
        and speech_end - state.start < rules.min_speech_ms * STT_RATE / 1000
    )


def reject_short(state: TurnState, speech_end: int, rules: TurnRules) -> TurnState:
    """Return the state after an utterance that is too short to be speech: REJECTED, without a transcript.

    It is dismissed only after `resume_after_ms` of silence, because more speech may follow it.
    """
    return replace(
        state,
        caller=CallerState.ENDPOINTING,
        speech_end=speech_end,
        required_silence_s=rules.barge_in.resume_after_ms / 1000,
        transcript_requested_at=-math.inf,
        barge_in_check=BargeInCheck.REJECTED,
    )


def accept(state: TurnState, rules: TurnRules) -> TurnStep:
    """Let the utterance pass the barge-in check, and cancel the reply that it interrupts.

    A client that does not know of the utterance learns of it.
    """
    revealed: tuple[Command, ...] = (RevealSpeech(),) if state.unannounced else ()
    state = replace(state, barge_in_check=BargeInCheck.NOT_NEEDED, unannounced=False)
    interrupts = state.agent is not AgentState.IDLE and rules.detection.interrupt_response
    if not (interrupts or state.agent is AgentState.PAUSED):
        return state, revealed
    return replace(state, agent=AgentState.IDLE), (*revealed, CancelReply("turn_detected"))


def interim_ready(state: TurnState, event: InterimReady, rules: TurnRules, now: float) -> TurnStep:
    """Continue the barge-in check with an interim transcript, while the caller is still speaking.

    If the words are addressed to the agent, the check is passed. Otherwise the check becomes REJECTED, and a reply that
    has been paused for `confirm_timeout_ms` is resumed.
    """
    if event.revision != state.revision or state.barge_in_check is BargeInCheck.NOT_NEEDED:
        return state, ()
    if event.addressed:
        return accept(state, rules)
    state = replace(state, barge_in_check=BargeInCheck.REJECTED)
    if state.agent is AgentState.PAUSED and now - state.reply_paused_at >= rules.barge_in.confirm_timeout_ms / 1000:
        return replace(state, agent=AgentState.REPLYING), (ResumeReply(),)
    return state, ()


def await_words(state: TurnState, rules: TurnRules, end: int, now: float) -> TurnStep:
    """Handle an utterance that has not passed its barge-in check when its required silence is over.

    If the check is REJECTED, dismiss the utterance. Otherwise wait for its transcript, and resume the paused reply if
    the transcript is not known after `confirm_timeout_ms`.

    Args:
        state: The state of the turn machine.
        rules: The session's configuration.
        end: Sample at which the required silence has passed.
        now: Monotonic time in seconds.
    """
    if state.barge_in_check is BargeInCheck.REJECTED:
        return dismiss(state, speech_end=state.speech_end, end=end, rules=rules, now=now)
    deadline = state.transcript_requested_at + rules.barge_in.confirm_timeout_ms / 1000
    if now >= deadline:
        return resume_reply(replace(state, barge_in_check=BargeInCheck.OVERDUE))
    if state.barge_in_check is BargeInCheck.OVERDUE:
        return state, ()
    return replace(state, barge_in_check=BargeInCheck.OVERDUE), (WaitUntil(state.revision, deadline),)


def dismiss(state: TurnState, speech_end: int, end: int, rules: TurnRules, *, now: float) -> TurnStep:
    """Dismiss an utterance, because it is not a turn, and resume the reply that it paused.

    Args:
        state: The state of the turn machine.
        speech_end: Sample at which the utterance's sound ended.
        end: Sample at which the next utterance may begin.
        rules: The session's configuration.
        now: Monotonic time in seconds.
    """
    old = state.revision
    commands: tuple[Command, ...] = (CancelRevision(old), DismissUtterance(speech_end, end))
    quiet = replace(
        state,
        caller=CallerState.QUIET,
        revision=old + 1,
        start=end,
        required_silence_s=None,
        barge_in_check=BargeInCheck.NOT_NEEDED,
        unannounced=False,
    )
    quiet, resumed = resume_reply(quiet)
    if quiet.agent is AgentState.IDLE and rules.idle_timeout_s is not None:
        return quiet, (*commands, StartIdleTimer(quiet.revision, now + rules.idle_timeout_s))
    return quiet, commands + resumed


def pause_reply(state: TurnState, rules: TurnRules, now: float) -> TurnStep:
    """Pause the reply if a reply is playing and `rules.pauses_replies` is True. Otherwise change nothing."""
    if state.agent is not AgentState.REPLYING or not rules.pauses_replies:
        return state, ()
    paused = PauseReply(dropped=not state.unannounced)
    return replace(state, agent=AgentState.PAUSED, reply_paused_at=now), (paused,)


def resume_reply(state: TurnState) -> TurnStep:
    """Resume the reply if it is paused. Otherwise change nothing."""
    if state.agent is not AgentState.PAUSED:
        return state, ()
    return replace(state, agent=AgentState.REPLYING), (ResumeReply(),)
