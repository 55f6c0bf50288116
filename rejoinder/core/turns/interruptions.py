"""Speech over a reply: the part of the turn machine that decides whether it was meant.

The reply falls silent with the first sound (PauseReply), since that can be taken back. An utterance that began so has a
claim to prove: words that are meant for us grant it, and the reply is over (CancelReply). If it ends without them, it
was no turn (Dismiss), and the reply goes on where it was last heard (ResumeReply).

    OPEN ------ words ---------------------------> granted: CancelReply, and a turn like any other
     |  \\------ surely no words ----> DENIED ------ resume_after_ms of silence ----> Dismiss, ResumeReply
     |
     +--------- silence, no answer -> DUE --------- words ---------------------------> granted, and taken at once
                                       \\----------- surely no words -----------------> Dismiss, ResumeReply

Whoever makes a noise without words for `confirm_timeout_ms` does not silence us any longer, though the noise goes on:
then the reply is resumed, and only words in it can end it. So it is if the words are not known for so long: the reply
goes on, and the utterance waits, since a caller must not lose a turn to a busy speech-to-text stage. Speech just behind
a reply, or over one that may not be interrupted, has a claim too, with no reply to pause: it may be an echo, which is
no turn.
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
    StartIdleTimer,
    WaitUntil,
)
from rejoinder.core.turns.events import InterimReady
from rejoinder.core.turns.speech_detector import SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnRules, TurnState, TurnStep


def started(state: TurnState, event: SpeechStarted | SpeechResumed, rules: TurnRules, now: float) -> TurnStep:
    """The caller begins to speak, perhaps over a reply."""
    claim = BargeInCheck.PENDING if _doubtful(state, rules, now) else BargeInCheck.NOT_NEEDED
    state = replace(state, caller=CallerState.SPEAKING, start=event.at, wait=None, claim=claim)
    announce = AnnounceSpeech(event.at)
    if state.agent is AgentState.IDLE or not rules.detection.interrupt_response:
        return state, (announce,)
    state, told = pause(state, rules, now)
    if not told:
        state, told = grant(state, rules)
    return state, (announce, *told)


def _doubtful(state: TurnState, rules: TurnRules, now: float) -> bool:
    """Whether what begins now may be something else than a turn."""
    if state.agent is AgentState.IDLE:
        return rules.barge_in.echo_guard and now - state.replied_at < rules.barge_in.echo_tail_ms / 1000
    return rules.pauses or (rules.barge_in.echo_guard and not rules.detection.interrupt_response)


def too_short(state: TurnState, speech_end: int, rules: TurnRules) -> bool:
    """Whether an utterance that has to prove itself was too short to be speech."""
    return (
        state.claim is not BargeInCheck.NOT_NEEDED and speech_end - state.start < rules.min_speech_ms * STT_RATE / 1000
    )


def deny(state: TurnState, speech_end: int, rules: TurnRules) -> TurnState:
    """It was too short, so nobody is asked for its words; but it may be the first sound of one, so it is waited for."""
    wait = rules.barge_in.resume_after_ms / 1000
    settling = replace(state, caller=CallerState.ENDPOINTING, speech_end=speech_end, wait=wait, asked_at=-math.inf)
    return replace(settling, claim=BargeInCheck.REJECTED)


def grant(state: TurnState, rules: TurnRules) -> TurnStep:
    """The words are meant for us: what is being said is over."""
    state = replace(state, claim=BargeInCheck.NOT_NEEDED)
    interrupts = state.agent is not AgentState.IDLE and rules.detection.interrupt_response
    if not (interrupts or state.agent is AgentState.PAUSED):
        return state, ()
    return replace(state, agent=AgentState.IDLE), (CancelReply("turn_detected"),)


def guessed(state: TurnState, event: InterimReady, rules: TurnRules, now: float) -> TurnStep:
    """What the caller has said so far, who goes on speaking."""
    if event.revision != state.revision or state.claim is BargeInCheck.NOT_NEEDED:
        return state, ()
    if event.meant:
        return grant(state, rules)
    state = replace(state, claim=BargeInCheck.REJECTED)
    if state.agent is AgentState.PAUSED and now - state.paused_at >= rules.barge_in.confirm_timeout_ms / 1000:
        return replace(state, agent=AgentState.REPLYING), (ResumeReply(),)
    return state, ()


def await_words(state: TurnState, rules: TurnRules, end: int, now: float) -> TurnStep:
    """The silence has lasted long enough to take the turn at sample `end`, but its claim is not granted."""
    if state.claim is BargeInCheck.REJECTED:
        return dismiss(state, speech_end=state.speech_end, end=end, rules=rules, now=now)
    deadline = state.asked_at + rules.barge_in.confirm_timeout_ms / 1000
    if now >= deadline:
        return resume(replace(state, claim=BargeInCheck.OVERDUE))
    if state.claim is BargeInCheck.OVERDUE:
        return state, ()
    return replace(state, claim=BargeInCheck.OVERDUE), (WaitUntil(state.revision, deadline),)


def dismiss(state: TurnState, speech_end: int, end: int, rules: TurnRules, *, now: float) -> TurnStep:
    """The utterance was no turn: forget it, and go on with what was being said."""
    old = state.revision
    told: tuple[Command, ...] = (CancelRevision(old), DismissUtterance(speech_end, end))
    quiet = replace(
        state, caller=CallerState.QUIET, revision=old + 1, start=end, wait=None, claim=BargeInCheck.NOT_NEEDED
    )
    quiet, resumed = resume(quiet)
    if quiet.agent is AgentState.IDLE and rules.idle_s is not None:
        return quiet, (*told, StartIdleTimer(quiet.revision, now + rules.idle_s))
    return quiet, told + resumed


def pause(state: TurnState, rules: TurnRules, now: float) -> TurnStep:
    """Silence a reply that only words end, if there is one."""
    if state.agent is not AgentState.REPLYING or not rules.pauses:
        return state, ()
    return replace(state, agent=AgentState.PAUSED, paused_at=now), (PauseReply(),)


def resume(state: TurnState) -> TurnStep:
    """Go on with a reply that was paused, if one was."""
    if state.agent is not AgentState.PAUSED:
        return state, ()
    return replace(state, agent=AgentState.REPLYING), (ResumeReply(),)
