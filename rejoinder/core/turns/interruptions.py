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
    Command,
    Dismiss,
    Forget,
    PauseReply,
    ResumeReply,
    WaitUntil,
    WatchSilence,
)
from rejoinder.core.turns.events import Guessed
from rejoinder.core.turns.speech_detector import SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import Agent, Caller, Claim, Step, TurnRules, TurnState


def started(state: TurnState, event: SpeechStarted | SpeechResumed, rules: TurnRules, now: float) -> Step:
    """The caller begins to speak, perhaps over a reply."""
    claim = Claim.OPEN if _doubtful(state, rules, now) else Claim.NONE
    state = replace(state, caller=Caller.SPEAKING, start=event.at, wait=None, claim=claim)
    announce = AnnounceSpeech(event.at)
    if state.agent is Agent.IDLE or not rules.detection.interrupt_response:
        return state, (announce,)
    state, told = pause(state, rules, now)
    if not told:
        state, told = grant(state, rules)
    return state, (announce, *told)


def _doubtful(state: TurnState, rules: TurnRules, now: float) -> bool:
    """Whether what begins now may be something else than a turn."""
    if state.agent is Agent.IDLE:
        return rules.barge_in.echo_guard and now - state.replied_at < rules.barge_in.echo_tail_ms / 1000
    return rules.pauses or (rules.barge_in.echo_guard and not rules.detection.interrupt_response)


def too_short(state: TurnState, speech_end: int, rules: TurnRules) -> bool:
    """Whether an utterance that has to prove itself was too short to be speech."""
    return state.claim is not Claim.NONE and speech_end - state.start < rules.min_speech_ms * STT_RATE / 1000


def deny(state: TurnState, speech_end: int, rules: TurnRules) -> TurnState:
    """It was too short, so nobody is asked for its words; but it may be the first sound of one, so it is waited for."""
    wait = rules.barge_in.resume_after_ms / 1000
    settling = replace(state, caller=Caller.SETTLING, speech_end=speech_end, wait=wait, asked_at=-math.inf)
    return replace(settling, claim=Claim.DENIED)


def grant(state: TurnState, rules: TurnRules) -> Step:
    """The words are meant for us: what is being said is over."""
    state = replace(state, claim=Claim.NONE)
    interrupts = state.agent is not Agent.IDLE and rules.detection.interrupt_response
    if not (interrupts or state.agent is Agent.PAUSED):
        return state, ()
    return replace(state, agent=Agent.IDLE), (CancelReply("turn_detected"),)


def guessed(state: TurnState, event: Guessed, rules: TurnRules, now: float) -> Step:
    """What the caller has said so far, who goes on speaking."""
    if event.revision != state.revision or state.claim is Claim.NONE:
        return state, ()
    if event.meant:
        return grant(state, rules)
    state = replace(state, claim=Claim.DENIED)
    if state.agent is Agent.PAUSED and now - state.paused_at >= rules.barge_in.confirm_timeout_ms / 1000:
        return replace(state, agent=Agent.REPLYING), (ResumeReply(),)
    return state, ()


def await_words(state: TurnState, rules: TurnRules, end: int, now: float) -> Step:
    """The silence has lasted long enough to take the turn at sample `end`, but its claim is not granted."""
    if state.claim is Claim.DENIED:
        return dismiss(state, state.speech_end, end, rules, now)
    deadline = state.asked_at + rules.barge_in.confirm_timeout_ms / 1000
    if now >= deadline:
        return resume(replace(state, claim=Claim.DUE))
    if state.claim is Claim.DUE:
        return state, ()
    return replace(state, claim=Claim.DUE), (WaitUntil(state.revision, deadline),)


def dismiss(state: TurnState, speech_end: int, end: int, rules: TurnRules, now: float) -> Step:
    """The utterance was no turn: forget it, and go on with what was being said."""
    old = state.revision
    told: tuple[Command, ...] = (Forget(old), Dismiss(speech_end, end))
    quiet = replace(state, caller=Caller.QUIET, revision=old + 1, start=end, wait=None, claim=Claim.NONE)
    quiet, resumed = resume(quiet)
    if quiet.agent is Agent.IDLE and rules.idle_s is not None:
        return quiet, (*told, WatchSilence(quiet.revision, now + rules.idle_s))
    return quiet, told + resumed


def pause(state: TurnState, rules: TurnRules, now: float) -> Step:
    """Silence a reply that only words end, if there is one."""
    if state.agent is not Agent.REPLYING or not rules.pauses:
        return state, ()
    return replace(state, agent=Agent.PAUSED, paused_at=now), (PauseReply(),)


def resume(state: TurnState) -> Step:
    """Go on with a reply that was paused, if one was."""
    if state.agent is not Agent.PAUSED:
        return state, ()
    return replace(state, agent=Agent.REPLYING), (ResumeReply(),)
