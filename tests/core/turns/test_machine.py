"""Tests of the turn machine, a function from a state and an event to a new state and commands.

A revision numbers what was heard of an utterance: it increases when speech resumes or a turn ends, and results for an
old revision are ignored. Positions in audio are samples at 16 kHz, times are seconds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.settings.settings import BargeInSettings
from rejoinder.core.turns.commands import (
    AnnounceSpeech,
    CancelReply,
    CancelRevision,
    Command,
    CommitIdleTurn,
    CommitTurn,
    PauseReply,
    StartIdleTimer,
    StartReply,
    Transcribe,
    WaitUntil,
)
from rejoinder.core.turns.endpointing import DetectionMode, EndpointRule, TurnDetection, endpoint_silence_s
from rejoinder.core.turns.events import (
    AudioProcessed,
    ClearRequested,
    CommitRequested,
    IdleTimeout,
    InterimReady,
    ReplyEnded,
    ReplyRequested,
    SilenceElapsed,
    TranscriptReady,
    TurnEvent,
    VerdictReady,
)
from rejoinder.core.turns.machine import TABLE, step
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechResumed, SpeechStarted
from rejoinder.core.turns.state import AgentState, CallerState, TurnRules, TurnState

RATE = 16_000
ENDPOINTING = EndpointRule()
SEMANTIC = TurnRules(TurnDetection(), ENDPOINTING, max_utterance_s=30)
SERVER = TurnRules(TurnDetection(mode=DetectionMode.SERVER_VAD, silence_duration_ms=700), ENDPOINTING, 30)
MANUAL = TurnRules(TurnDetection(mode=DetectionMode.NONE), ENDPOINTING, 30)


def changed(rules: TurnRules, **detection: Any) -> TurnRules:
    return replace(rules, detection=replace(rules.detection, **detection))


@dataclass
class Machine:
    """Turn machine under test, with its rules, state and time in seconds. `commands` has all commands so far."""

    rules: TurnRules = SEMANTIC
    state: TurnState = field(default_factory=TurnState)
    now: float = 100.0
    commands: list[Command] = field(default_factory=list)

    def feed(self, *events: TurnEvent) -> list[Command]:
        """Process these events in order, and return the commands that they cause."""
        caused: list[Command] = []
        for event in events:
            self.state, commands = step(self.state, event, self.rules, self.now)
            caused += commands
        self.commands += caused
        return caused

    def speak(self) -> list[Command]:
        """Feed one second of speech and, 96 ms after it, a tentative end of speech (SoftEnd); return the commands."""
        return self.feed(SpeechStarted(16_000), SoftEnd(32_000, 33_536))


def timer(commands: list[Command]) -> tuple[int, float]:
    """Return the revision of the last timer (WaitUntil) and its time in seconds, rounded to the microsecond."""
    return [(command.revision, round(command.at, 6)) for command in commands if isinstance(command, WaitUntil)][-1]


def test_every_state_handles_every_event() -> None:
    """The machine's transition table has an entry for every event in every caller state."""
    assert set(TABLE) == set(itertools.product(CallerState, get_args(TurnEvent)))


def test_a_certain_verdict_commits_after_the_shortest_silence() -> None:
    """If the turn detector is certain (probability 1), the turn ends after `min_silence_ms`, and the reply starts."""
    machine = Machine()
    assert machine.speak() == [AnnounceSpeech(16_000), Transcribe(0, 16_000, 33_536, detect_end_of_turn=True)]
    assert timer(machine.feed(VerdictReady(0, 1.0, 33_536))) == (0, 100.004)
    end = 32_000 + 1_600
    commits = machine.feed(SilenceElapsed(0))
    assert commits == [CommitTurn(0, 16_000, end, 32_000, transcript_requested=True), StartReply()]
    assert (machine.state.caller, machine.state.agent, machine.state.revision) == (
        CallerState.QUIET,
        AgentState.REPLYING,
        1,
    )


def test_a_late_verdict_commits_at_once() -> None:
    """If the received audio already has the required silence, the turn detector's verdict ends the turn at once."""
    machine = Machine()
    machine.speak()
    assert [type(c) for c in machine.feed(VerdictReady(0, 1.0, 33_600))] == [CommitTurn, StartReply]


def test_no_verdict_falls_back_to_silence() -> None:
    """If the turn detector fails, the turn ends after `fallback_silence_ms` of silence."""
    machine = Machine()
    machine.speak()
    due = round(100.0 + ENDPOINTING.settings.fallback_silence_ms / 1000 - 0.096, 6)
    assert timer(machine.feed(VerdictReady(0, None, 33_536))) == (0, due)


@pytest.mark.parametrize("silence_ms", [0, 20, 200, 500, 700, 3000])
def test_server_vad_waits_exactly_its_silence_by_both_clocks(silence_ms: int) -> None:
    """With server_vad the turn ends after exactly the configured silence, by wall clock or by received audio.

    The time is exact to the microsecond by the wall clock and to the sample by the received audio.
    """
    rules = changed(SERVER, silence_duration_ms=silence_ms)
    end = 32_000 + silence_ms * 16
    by_wall = Machine(rules)
    caused = by_wall.speak()
    if silence_ms < 96:
        assert caused[-2:] == [CommitTurn(0, 16_000, end, 32_000, transcript_requested=True), StartReply()]
        return
    assert caused[1] == Transcribe(0, 16_000, 33_536, detect_end_of_turn=False)
    assert timer(caused) == (0, round(100.0 + silence_ms / 1000 - 0.096, 6))
    by_audio = replace(by_wall, commands=[])
    assert by_audio.feed(AudioProcessed(end - 1)) == []
    assert by_audio.feed(AudioProcessed(end))[0] == CommitTurn(0, 16_000, end, 32_000, transcript_requested=True)
    assert by_wall.feed(SilenceElapsed(0))[0] == CommitTurn(0, 16_000, end, 32_000, transcript_requested=True)


def test_resumed_speech_starts_a_new_revision() -> None:
    """If speech resumes, work on the old revision is cancelled, and the next transcript is of the whole utterance."""
    machine = Machine()
    machine.speak()
    assert machine.feed(SpeechResumed(36_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(48_000, 49_536)) == [Transcribe(1, 16_000, 49_536, detect_end_of_turn=True)]
    assert machine.feed(VerdictReady(0, 1.0, 60_000), SilenceElapsed(0)) == []


def test_speech_that_resumes_during_the_commit_is_the_next_turn() -> None:
    """If speech resumes just after the turn was ended, it begins the next turn."""
    machine = Machine()
    machine.speak()
    machine.feed(VerdictReady(0, 1.0, 33_600))
    caused = machine.feed(SpeechResumed(33_700))
    assert caused == [AnnounceSpeech(33_700), PauseReply()]
    assert machine.feed(SoftEnd(40_000, 41_536)) == [Transcribe(1, 33_700, 41_536, detect_end_of_turn=True)]


def test_barge_in_is_announced_before_the_reply_is_cancelled() -> None:
    """With min_words=0, speech cancels the reply at once, and its start is announced before the cancellation."""
    machine = Machine(replace(SEMANTIC, barge_in=BargeInSettings(min_words=0)), TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(5_000)) == [AnnounceSpeech(5_000), CancelReply("turn_detected")]
    assert machine.state.agent is AgentState.IDLE


def test_a_reply_that_cannot_be_interrupted_is_followed_by_one_more() -> None:
    """With interrupt_response=false, all turns that end during a reply get one common reply after it."""
    machine = Machine(changed(SERVER, interrupt_response=False), TurnState(agent=AgentState.REPLYING))
    assert CancelReply("turn_detected") not in machine.speak()
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 34_000), SilenceElapsed(0))] == [CommitTurn]
    assert machine.state.agent is AgentState.REPLY_QUEUED
    machine.feed(SpeechStarted(50_000), SoftEnd(60_000, 61_536), TranscriptReady(1, True, 62_000), SilenceElapsed(1))
    assert machine.feed(ReplyEnded()) == [StartReply()]
    assert machine.feed(ReplyEnded()) == []
    assert (machine.state.agent, machine.state.revision, machine.state.start) == (AgentState.IDLE, 2, 71_200)


def test_create_response_false_commits_without_answering() -> None:
    """With create_response=false no reply starts at the end of a turn, only when the client requests it."""
    machine = Machine(changed(SEMANTIC, create_response=False))
    machine.speak()
    assert [type(c) for c in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn]
    assert machine.state.agent is AgentState.IDLE
    assert machine.feed(ReplyRequested("request")) == [StartReply(request="request")]


@pytest.mark.parametrize("rules", [SEMANTIC, SERVER, MANUAL])
def test_a_client_that_commits_requests_the_reply(rules: TurnRules) -> None:
    """In every mode of turn detection, a turn that the client commits is answered only if the client requests it."""
    machine = Machine(rules)
    assert machine.feed(CommitRequested(32_000)) == [CommitTurn(0, 0, 32_000, 32_000, transcript_requested=False)]
    assert machine.feed(ReplyRequested()) == [StartReply()]


def test_a_commit_while_endpointing_uses_the_requested_transcript() -> None:
    """If the client commits after a tentative end of speech, the transcript that was requested at that end is used."""
    machine = Machine()
    machine.speak()
    assert machine.feed(CommitRequested(40_000)) == [CommitTurn(0, 16_000, 40_000, 32_000, transcript_requested=True)]


def test_turn_detection_switched_off_while_endpointing() -> None:
    """After turn detection is switched off during the silence after speech, a verdict does not end the turn.

    A silence timer (SilenceElapsed) that was started before ends the turn, and no reply starts.
    """
    machine = Machine()
    machine.speak()
    machine.rules = MANUAL
    assert machine.feed(VerdictReady(0, 1.0, 40_000), AudioProcessed(10**9)) == []
    machine = Machine(SERVER)
    machine.speak()
    machine.rules = MANUAL
    assert [type(c) for c in machine.feed(SilenceElapsed(0))] == [CommitTurn]


def test_an_endless_utterance_is_cut_once() -> None:
    """An utterance that reaches `max_utterance_s` becomes one turn, even if audio beyond the limit is processed."""
    machine = Machine(replace(SEMANTIC, max_utterance_s=2))
    machine.feed(SpeechStarted(1_000))
    assert machine.feed(AudioProcessed(32_999)) == []
    assert machine.feed(AudioProcessed(33_000), AudioProcessed(33_512), AudioProcessed(34_024)) == [
        CommitTurn(0, 1_000, 33_000, 33_000, transcript_requested=False),
        StartReply(),
    ]


def test_cleared_audio_is_dropped() -> None:
    """After input_audio_buffer.clear, no result for the cleared audio ends a turn."""
    machine = Machine()
    machine.speak()
    assert machine.feed(ClearRequested(34_000)) == [CancelRevision(0)]
    assert machine.feed(VerdictReady(0, 1.0, 60_000), SilenceElapsed(0), AudioProcessed(90_000)) == []
    assert (machine.state.caller, machine.state.revision, machine.state.start) == (CallerState.QUIET, 1, 34_000)


IDLE = changed(SERVER, idle_timeout_ms=6000)


def test_the_idle_timeout_starts_a_reply() -> None:
    """If the caller is silent for `idle_timeout_ms` after a reply, the silence becomes a turn and is answered."""
    machine = Machine(IDLE, TurnState(agent=AgentState.REPLYING, revision=3))
    assert machine.feed(ReplyEnded()) == [StartIdleTimer(3, 106.0)]
    assert machine.feed(IdleTimeout(3, 1_000, 97_000)) == [CommitIdleTurn(1_000, 97_000), StartReply()]
    assert (machine.state.agent, machine.state.revision) == (AgentState.REPLYING, 4)


@pytest.mark.parametrize(
    "meanwhile",
    [
        [SpeechStarted(9_000)],
        [SpeechStarted(9_000), SoftEnd(16_000, 17_536), SilenceElapsed(3), ReplyEnded()],
        [ReplyRequested()],
        [CommitRequested(9_000)],
        [ClearRequested(9_000)],
    ],
)
def test_activity_cancels_the_idle_timeout(meanwhile: list[TurnEvent]) -> None:
    """The idle timeout has no effect if speech, a commit, a clear or a reply came before it."""
    machine = Machine(IDLE, TurnState(agent=AgentState.REPLYING, revision=3))
    machine.feed(ReplyEnded(), *meanwhile)
    before = machine.state
    assert machine.feed(IdleTimeout(3, 1_000, 97_000)) == []
    assert machine.state == before


@pytest.mark.parametrize("rules", [SEMANTIC, SERVER, MANUAL, changed(IDLE, create_response=False)])
def test_without_an_idle_timeout_no_timer_starts(rules: TurnRules) -> None:
    """The idle timer starts only with server_vad, a configured timeout, and create_response on."""
    machine = Machine(rules, TurnState(agent=AgentState.REPLYING))
    assert machine.feed(ReplyEnded()) == []


# -- any order of events -----------------------------------------------------------------------------------------------

samples = st.integers(0, 10**6)
revisions = st.integers(0, 6)
events: st.SearchStrategy[TurnEvent] = st.one_of(
    st.builds(SpeechStarted, samples),
    st.builds(lambda end, more: SoftEnd(end, end + more), samples, st.integers(512, 16_000)),
    st.builds(SpeechResumed, samples),
    st.builds(VerdictReady, revisions, st.none() | st.floats(0, 1), samples),
    st.builds(TranscriptReady, revisions, st.booleans(), samples),
    st.builds(InterimReady, revisions, st.booleans()),
    st.builds(AudioProcessed, samples),
    st.builds(SilenceElapsed, revisions),
    st.builds(CommitRequested, samples),
    st.builds(ClearRequested, samples),
    st.just(ReplyRequested()),
    st.just(ReplyEnded()),
    st.builds(IdleTimeout, revisions, samples, samples),
)
all_rules = st.builds(
    lambda mode, create, interrupt, idle, drafts, min_words: TurnRules(
        TurnDetection(
            mode=mode,
            create_response=create,
            interrupt_response=interrupt,
            idle_timeout_ms=idle if mode is DetectionMode.SERVER_VAD else None,
        ),
        endpointing=ENDPOINTING,
        max_utterance_s=30,
        drafts=drafts,
        barge_in=BargeInSettings(min_words=min_words),
    ),
    st.sampled_from(DetectionMode),
    st.booleans(),
    st.booleans(),
    st.none() | st.just(5000),
    st.booleans(),
    st.integers(0, 1),
)


@given(all_rules, st.lists(events, max_size=40))
def test_only_one_reply_is_under_way(rules: TurnRules, story: list[TurnEvent]) -> None:
    """A reply starts only if no other reply has started and not ended, unless the client requests it.

    The session, not the machine, refuses a client's request during a reply.
    """
    machine, replying = Machine(rules), False
    for event in story:
        if isinstance(event, ReplyEnded):
            replying = False
        for command in machine.feed(event):
            if isinstance(command, CancelReply):
                assert replying
                replying = False
            if isinstance(command, StartReply):
                assert not replying or isinstance(event, ReplyRequested)
                replying = True
        assert replying == (machine.state.agent is not AgentState.IDLE)


@given(all_rules, st.lists(events, max_size=40))
def test_revisions_only_grow_and_old_results_change_nothing(rules: TurnRules, story: list[TurnEvent]) -> None:
    """The revision never decreases, and a result for an older revision changes neither state nor commands."""
    machine = Machine(rules)
    for event in story:
        before = machine.state
        caused = machine.feed(event)
        assert machine.state.revision >= before.revision
        if isinstance(event, VerdictReady | SilenceElapsed | IdleTimeout) and event.revision != before.revision:
            assert (machine.state, caused) == (before, [])


@given(all_rules, st.lists(events, max_size=40))
def test_a_turn_ends_after_its_required_silence(rules: TurnRules, story: list[TurnEvent]) -> None:
    """A turn that the machine ends by silence ends after the required silence, by wall clock or by received audio."""
    machine, probability = Machine(rules), None
    due: float | None = None
    for event in story:
        before = machine.state
        if isinstance(event, VerdictReady) and event.revision == before.revision and before.required_silence_s is None:
            probability = event.probability
        for command in machine.feed(event):
            if isinstance(command, WaitUntil):
                due = command.at
            if not isinstance(command, CommitTurn) or isinstance(event, CommitRequested):
                continue
            if not command.transcript_requested:  # this turn was cut at max_utterance_s and not ended by silence
                assert command.end - command.start >= 30 * RATE
                continue
            judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
            wait = endpoint_silence_s(rules.detection, rules.endpointing, probability if judged else None)
            assert command.end == command.speech_end + round(wait * RATE)
            processed = {VerdictReady: "processed", AudioProcessed: "processed", SoftEnd: "at"}.get(type(event))
            if processed:
                assert getattr(event, processed) - command.speech_end >= wait * RATE - 1
            else:
                assert isinstance(event, SilenceElapsed)
                assert due is not None


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_probability_never_waits_longer(first: float, second: float) -> None:
    """If the turn detector's probability is higher, the machine never waits longer for the end of the turn."""
    low, high = sorted((first, second))
    silences_s = []
    for probability in (low, high):
        machine = Machine()
        machine.speak()
        machine.feed(VerdictReady(0, probability, 33_000))
        decided_s = machine.state.required_silence_s
        silences_s.append(decided_s if decided_s is not None else endpoint_silence_s(TurnDetection(), ENDPOINTING, 1.0))
    assert silences_s[0] >= silences_s[1]
