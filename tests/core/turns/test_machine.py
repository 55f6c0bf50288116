"""The turn machine: a list of events and the commands they must cause. No clock, no tasks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.settings.settings import BargeInSettings, EndpointingSettings
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
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection, wait_s
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
ENDPOINTING = EndpointingSettings()
SEMANTIC = TurnRules(TurnDetection(), ENDPOINTING, max_utterance_s=30)
SERVER = TurnRules(TurnDetection(mode=DetectionMode.SERVER_VAD, silence_duration_ms=700), ENDPOINTING, 30)
MANUAL = TurnRules(TurnDetection(mode=DetectionMode.NONE), ENDPOINTING, 30)


def changed(rules: TurnRules, **detection: Any) -> TurnRules:
    return replace(rules, detection=replace(rules.detection, **detection))


@dataclass
class Machine:
    """A machine under test: remembers the commands."""

    rules: TurnRules = SEMANTIC
    state: TurnState = field(default_factory=TurnState)
    now: float = 100.0
    commands: list[Command] = field(default_factory=list)

    def feed(self, *events: TurnEvent) -> list[Command]:
        """The commands of these events."""
        caused: list[Command] = []
        for event in events:
            self.state, commands = step(self.state, event, self.rules, self.now)
            caused += commands
        self.commands += caused
        return caused

    def speak(self) -> list[Command]:
        """Speech of a second, a soft end 96 ms behind it."""
        return self.feed(SpeechStarted(16_000), SoftEnd(32_000, 33_536))


def timer(commands: list[Command]) -> tuple[int, float]:
    """Revision and time of the timer that was set last, the time to the microsecond."""
    return [(command.revision, round(command.at, 6)) for command in commands if isinstance(command, WaitUntil)][-1]


def test_every_phase_answers_every_event() -> None:
    """The table is total: no event of a session can find the machine without an answer."""
    assert set(TABLE) == set(itertools.product(CallerState, get_args(TurnEvent)))


def test_a_sure_verdict_commits_after_the_shortest_silence_and_starts_the_reply() -> None:
    """Announce, hear, then the turn [start, end) with the silence the verdict asked for, then its reply."""
    machine = Machine()
    assert machine.speak() == [AnnounceSpeech(16_000), Transcribe(0, 16_000, 33_536, judge=True)]
    assert timer(machine.feed(VerdictReady(0, 1.0, 33_536))) == (0, 100.004)
    end = 32_000 + 1_600
    commits = machine.feed(SilenceElapsed(0))
    assert commits == [CommitTurn(0, 16_000, end, 32_000, heard=True), StartReply()]
    assert (machine.state.caller, machine.state.agent, machine.state.revision) == (
        CallerState.QUIET,
        AgentState.REPLYING,
        1,
    )


def test_a_verdict_that_comes_late_commits_at_once() -> None:
    """If the silence it asks for has already passed by the audio clock, nothing more is waited for."""
    machine = Machine()
    machine.speak()
    assert [type(c) for c in machine.feed(VerdictReady(0, 1.0, 33_600))] == [CommitTurn, StartReply]


def test_no_verdict_falls_back_to_silence() -> None:
    """A turn model that did not answer in time leaves the configured fallback."""
    machine = Machine()
    machine.speak()
    due = round(100.0 + ENDPOINTING.fallback_silence_ms / 1000 - 0.096, 6)
    assert timer(machine.feed(VerdictReady(0, None, 33_536))) == (0, due)


@pytest.mark.parametrize("silence_ms", [0, 20, 200, 500, 700, 3000])
def test_server_vad_waits_exactly_its_silence_by_both_clocks(silence_ms: int) -> None:
    """Whatever the turn model would say: by the wall clock to the microsecond, by the audio clock to the sample."""
    rules = changed(SERVER, silence_duration_ms=silence_ms)
    end = 32_000 + silence_ms * 16
    by_wall = Machine(rules)
    caused = by_wall.speak()
    if silence_ms < 96:
        assert caused[-2:] == [CommitTurn(0, 16_000, end, 32_000, heard=True), StartReply()]
        return
    assert caused[1] == Transcribe(0, 16_000, 33_536, judge=False)
    assert timer(caused) == (0, round(100.0 + silence_ms / 1000 - 0.096, 6))
    by_audio = replace(by_wall, commands=[])
    assert by_audio.feed(AudioProcessed(end - 1)) == []
    assert by_audio.feed(AudioProcessed(end))[0] == CommitTurn(0, 16_000, end, 32_000, heard=True)
    assert by_wall.feed(SilenceElapsed(0))[0] == CommitTurn(0, 16_000, end, 32_000, heard=True)


def test_resumed_speech_forgets_what_was_begun_and_keeps_the_start() -> None:
    """The revision goes up, and the next hearing covers the whole utterance."""
    machine = Machine()
    machine.speak()
    assert machine.feed(SpeechResumed(36_000)) == [CancelRevision(0)]
    assert machine.feed(SoftEnd(48_000, 49_536)) == [Transcribe(1, 16_000, 49_536, judge=True)]
    assert machine.feed(VerdictReady(0, 1.0, 60_000), SilenceElapsed(0)) == []


def test_speech_that_resumes_as_its_turn_is_committed_is_the_next_turn() -> None:
    """The edge was decided before the commit was performed: it must not be lost."""
    machine = Machine()
    machine.speak()
    machine.feed(VerdictReady(0, 1.0, 33_600))
    caused = machine.feed(SpeechResumed(33_700))
    assert caused == [AnnounceSpeech(33_700), PauseReply()]
    assert machine.feed(SoftEnd(40_000, 41_536)) == [Transcribe(1, 33_700, 41_536, judge=True)]


def test_speech_over_a_reply_cancels_it_after_it_was_announced() -> None:
    """Barge-in, final at once: speech_started goes out before anything of the cancelled response does."""
    machine = Machine(replace(SEMANTIC, barge_in=BargeInSettings(min_words=0)), TurnState(agent=AgentState.REPLYING))
    assert machine.feed(SpeechStarted(5_000)) == [AnnounceSpeech(5_000), CancelReply("turn_detected")]
    assert machine.state.agent is AgentState.IDLE


def test_a_reply_that_may_not_be_interrupted_is_followed_by_one_more() -> None:
    """interrupt_response=false: turns committed meanwhile are owed one answer, given when the reply has ended."""
    machine = Machine(changed(SERVER, interrupt_response=False), TurnState(agent=AgentState.REPLYING))
    assert CancelReply("turn_detected") not in machine.speak()
    assert [type(c) for c in machine.feed(TranscriptReady(0, True, 34_000), SilenceElapsed(0))] == [CommitTurn]
    assert machine.state.agent is AgentState.REPLY_QUEUED
    machine.feed(SpeechStarted(50_000), SoftEnd(60_000, 61_536), TranscriptReady(1, True, 62_000), SilenceElapsed(1))
    assert machine.feed(ReplyEnded()) == [StartReply()]
    assert machine.feed(ReplyEnded()) == []
    assert (machine.state.agent, machine.state.revision, machine.state.start) == (AgentState.IDLE, 2, 71_200)


def test_create_response_false_commits_without_answering() -> None:
    """The client asks for the reply itself, and gets it."""
    machine = Machine(changed(SEMANTIC, create_response=False))
    machine.speak()
    assert [type(c) for c in machine.feed(VerdictReady(0, 1.0, 40_000))] == [CommitTurn]
    assert machine.state.agent is AgentState.IDLE
    assert machine.feed(ReplyRequested("request")) == [StartReply(request="request")]


@pytest.mark.parametrize("rules", [SEMANTIC, SERVER, MANUAL])
def test_a_client_that_commits_asks_for_the_reply_too(rules: TurnRules) -> None:
    """input_audio_buffer.commit creates no response (openai-realtime.md section 3), in any mode."""
    machine = Machine(rules)
    assert machine.feed(CommitRequested(32_000)) == [CommitTurn(0, 0, 32_000, 32_000, heard=False)]
    assert machine.feed(ReplyRequested()) == [StartReply()]


def test_a_commit_while_settling_uses_what_is_being_heard() -> None:
    """The transcript begun at the soft end is not asked for twice."""
    machine = Machine()
    machine.speak()
    assert machine.feed(CommitRequested(40_000)) == [CommitTurn(0, 16_000, 40_000, 32_000, heard=True)]


def test_turn_detection_switched_off_while_settling_leaves_the_turn_to_the_client() -> None:
    """The verdict that is on its way waits for nothing and answers nothing."""
    machine = Machine()
    machine.speak()
    machine.rules = MANUAL
    assert machine.feed(VerdictReady(0, 1.0, 40_000), AudioProcessed(10**9)) == []
    machine = Machine(SERVER)
    machine.speak()
    machine.rules = MANUAL
    assert [type(c) for c in machine.feed(SilenceElapsed(0))] == [CommitTurn]


def test_an_endless_utterance_is_cut_once() -> None:
    """At max_utterance_s it becomes a turn, and windows decided meanwhile do not make a second one."""
    machine = Machine(replace(SEMANTIC, max_utterance_s=2))
    machine.feed(SpeechStarted(1_000))
    assert machine.feed(AudioProcessed(32_999)) == []
    assert machine.feed(AudioProcessed(33_000), AudioProcessed(33_512), AudioProcessed(34_024)) == [
        CommitTurn(0, 1_000, 33_000, 33_000, heard=False),
        StartReply(),
    ]


def test_cleared_audio_is_forgotten() -> None:
    """input_audio_buffer.clear: no result of it can commit anything."""
    machine = Machine()
    machine.speak()
    assert machine.feed(ClearRequested(34_000)) == [CancelRevision(0)]
    assert machine.feed(VerdictReady(0, 1.0, 60_000), SilenceElapsed(0), AudioProcessed(90_000)) == []
    assert (machine.state.caller, machine.state.revision, machine.state.start) == (CallerState.QUIET, 1, 34_000)


IDLE = changed(SERVER, idle_timeout_ms=6000)


def test_a_silent_caller_is_asked_again_after_the_idle_timeout() -> None:
    """server_vad's idle_timeout_ms counts from the end of playback; the silence is a turn, and it is answered."""
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
def test_whoever_does_something_is_not_idle(meanwhile: list[TurnEvent]) -> None:
    """Speech, a commit, a clear or a reply before the timeout make it void."""
    machine = Machine(IDLE, TurnState(agent=AgentState.REPLYING, revision=3))
    machine.feed(ReplyEnded(), *meanwhile)
    before = machine.state
    assert machine.feed(IdleTimeout(3, 1_000, 97_000)) == []
    assert machine.state == before


@pytest.mark.parametrize("rules", [SEMANTIC, SERVER, MANUAL, changed(IDLE, create_response=False)])
def test_without_an_idle_timeout_silence_lasts(rules: TurnRules) -> None:
    """Nothing is watched unless server_vad asked for it, and nothing is answered unasked."""
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
def test_there_is_never_a_second_reply_unless_the_first_ended_or_the_client_asked(
    rules: TurnRules, story: list[TurnEvent]
) -> None:
    """A reply starts only when none is under way; the client's own request is checked against the open response."""
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
    """A result of a revision that was overtaken leaves the state as it is and causes nothing."""
    machine = Machine(rules)
    for event in story:
        before = machine.state
        caused = machine.feed(event)
        assert machine.state.revision >= before.revision
        if isinstance(event, VerdictReady | SilenceElapsed | IdleTimeout) and event.revision != before.revision:
            assert (machine.state, caused) == (before, [])


@given(all_rules, st.lists(events, max_size=40))
def test_a_turn_is_committed_after_its_silence_or_not_by_us(rules: TurnRules, story: list[TurnEvent]) -> None:
    """Whoever was not cut off waited as long as the detection and the verdict require, by one of the clocks."""
    machine, probability = Machine(rules), None
    due: float | None = None
    for event in story:
        before = machine.state
        if isinstance(event, VerdictReady) and event.revision == before.revision and before.wait is None:
            probability = event.probability
        for command in machine.feed(event):
            if isinstance(command, WaitUntil):
                due = command.at
            if not isinstance(command, CommitTurn) or isinstance(event, CommitRequested):
                continue
            if not command.heard:  # cut at its longest
                assert command.end - command.start >= 30 * RATE
                continue
            judged = rules.detection.mode is DetectionMode.SEMANTIC_VAD
            wait = wait_s(rules.detection, rules.endpointing, probability if judged else None)
            assert command.end == command.speech_end + round(wait * RATE)
            processed = {VerdictReady: "processed", AudioProcessed: "processed", SoftEnd: "at"}.get(type(event))
            if processed:
                assert getattr(event, processed) - command.speech_end >= wait * RATE - 1
            else:
                assert isinstance(event, SilenceElapsed)
                assert due is not None


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_surer_verdict_never_waits_longer(first: float, second: float) -> None:
    """The machine's waits follow the endpointing map, which is monotone."""
    low, high = sorted((first, second))
    found = []
    for probability in (low, high):
        machine = Machine()
        machine.speak()
        machine.feed(VerdictReady(0, probability, 33_000))
        found.append(
            machine.state.wait if machine.state.wait is not None else wait_s(TurnDetection(), ENDPOINTING, 1.0)
        )
    assert found[0] >= found[1]
