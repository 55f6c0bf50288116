"""Tests of the drafts bench without a server: hesitant callers, their scripts, and the evidence from their calls.

A leak is audio or text of a discarded draft (speculative reply) that still reached the caller. Each emulated reply has
a mark in its sound and words: the length of the speech that it answers, in tenths of a second.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.benches.drafts.caller import ANSWER_S, HesitantCaller
from loadtest.benches.drafts.evidence import NOTHING, PADDING_S, Evidence, evidence
from loadtest.benches.drafts.script import PAUSE_S, THINK_S, TurnScript, hesitations, script
from loadtest.benches.drafts.verdict import SETTINGS, DraftFindings
from loadtest.scenario.utterances import FRAME_S, encode
from rejoinder.core.audio.pcm import float_to_pcm16
from rejoinder.core.measuring import audio_watermark
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.wire.formats import AudioFormat
from tests.loadtest.callers.scene import clip
from tests.loadtest.results.sample_results import idle_stage

MARGIN_S, PHRASE_S = 0.04, 1.0
SPEECH = encode([clip("a", PHRASE_S, MARGIN_S, MARGIN_S)], AudioFormat.PCM)
TWO_PHRASES = TurnScript(1.0, (0, 0), (0.4,))
ONE_PHRASE = TurnScript(1.0, (0,), ())


class ScriptedCall:
    """A call with server events at given times. Times are in seconds of the caller's audio stream."""

    def __init__(self, *turns: TurnScript) -> None:
        self.turns = len(turns)
        self.caller = HesitantCaller(SPEECH, turns)
        self.sent: list[bytes] = []

    def run(self, until: float) -> None:
        while self.caller.now < until - 1e-9:
            self.sent += self.caller.leaving(self.caller.now)

    def event(self, at: float, kind: str, **fields: Any) -> None:
        self.run(at)
        self.caller.take(orjson.dumps({"type": kind, **fields}), at)

    def takes(self, at: float, item: str, start_s: float, heard: int) -> None:
        """Deliver the server events of an utterance from `start_s` to `at`: speech, end of turn and transcript.

        The transcript states that `heard` tenths of a second were heard. `item` is the utterance's id.
        """
        edges = {"audio_start_ms": round(start_s * 1000)}, {"audio_end_ms": round(at * 1000)}
        for kind, edge in zip(("speech_started", "speech_stopped"), edges, strict=True):
            self.event(at, f"input_audio_buffer.{kind}", item_id=item, **edge)
        self.event(at, "input_audio_buffer.committed", item_id=item)
        text = audio_watermark.transcript(heard / 10, ".")
        kind = "conversation.item.input_audio_transcription.completed"
        self.event(at, kind, item_id=item, transcript=text)

    def answers(self, at: float, key: str, *sounds: tuple[int, float], words: int | None = None) -> None:
        """Deliver the start of the response `key` at `at`, with its transcript and audio.

        Each (mark, seconds) of `sounds` is that many seconds of audio with that mark. `words` is the mark that the
        transcript names, by default the first mark of `sounds`.
        """
        self.event(at, "response.created", response={"id": key})
        text = " ".join(audio_watermark.answer(sounds[0][0] if words is None else words))
        self.event(at, "response.output_audio_transcript.delta", response_id=key, delta=text)
        for mark, seconds in sounds:
            self.sounds(at, key, float_to_pcm16(0.14 * np.resize(audio_watermark.tone(mark), round(seconds * 24_000))))

    def sounds(self, at: float, key: str, pcm: bytes) -> None:
        delta = base64.b64encode(pcm).decode()
        self.event(at, "response.output_audio.delta", response_id=key, delta=delta)

    def done(self, at: float, key: str, item: str | None, status: str = "completed") -> None:
        response = {"id": key, "status": status}
        self.event(at, "response.done", response=response, rejoinder={"item_id": item})

    def hang_up(self) -> Evidence:
        self.caller.hang_up()
        return evidence(self.caller, self.turns)


# The mark of an answer to both phrases, in tenths of a second: the turn's speech lasts 2.4 s, from 1.04 s to 3.44 s.
WHOLE_MARK = round((2.4 + PADDING_S) * 10)


def whole_turn() -> ScriptedCall:
    call = ScriptedCall(TWO_PHRASES)
    call.takes(4.3, "i1", 0.75, WHOLE_MARK)
    return call


def test_a_correct_turn_has_no_leak() -> None:
    """A turn of two phrases, answered in two segments with the mark of the whole turn, gives no leak.

    The evidence has no wrong transcript, no fault, no unanswered turn and no premature utterance.
    """
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 1.23), (WHOLE_MARK, 0.91))
    call.done(6.0, "r1", "i1")
    call.run(6.1)
    found = call.hang_up()
    assert (found.leaks, found.misheard, found.faults) == ((), (), ())
    assert (found.turns, found.hesitant, found.unanswered, found.utterances, found.premature) == (1, 1, 0, 1, 0)
    assert call.caller.over
    assert found.judged_s == pytest.approx(2.14, abs=0.011)


def test_sound_of_an_earlier_revision_is_a_leak_however_short() -> None:
    """If 30 ms of an answer have the mark of the first phrase alone, they are a leak, even if the rest is correct."""
    call = whole_turn()
    call.answers(4.3, "r1", (13, 0.03), (WHOLE_MARK, 2.0), words=WHOLE_MARK)
    call.done(6.5, "r1", "i1")
    [leak] = call.hang_up().leaks
    assert (leak.turn, leak.expected, leak.found) == (0, WHOLE_MARK, (13,))
    assert leak.audio_s == pytest.approx(0.03)


def test_wrong_words_are_a_leak_beside_right_sound() -> None:
    """An answer whose transcript is that of a discarded draft is a leak, even if its audio has the right mark."""
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 2.0), words=13)
    call.done(6.5, "r1", "i1")
    [leak] = call.hang_up().leaks
    assert (leak.why, leak.found, leak.audio_s) == ("words of another revision", (13,), 0.0)


def test_sound_before_the_first_end_of_turn_is_a_leak() -> None:
    """An answer that comes in the pause inside the turn, before any utterance is committed, is a leak."""
    call = ScriptedCall(TWO_PHRASES)
    call.answers(2.3, "r1", (13, 0.5))
    found = call.hang_up()
    assert {leak.why for leak in found.leaks} == {"sound before the first end of turn", "words of another revision"}
    assert found.unanswered == 1


def test_a_second_answer_to_an_utterance_is_a_leak_even_with_its_mark() -> None:
    """A second answer to an utterance is a leak, even if its mark matches because both revisions are equally long."""
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 1.0))
    call.done(5.5, "r1", "i1")
    call.answers(5.6, "r2", (WHOLE_MARK, 1.0))
    assert [leak.why for leak in call.hang_up().leaks] == ["a second answer to one utterance"]


def test_an_answer_that_names_another_utterance_is_a_leak() -> None:
    """An answer is a leak if the server reports another utterance for it than the order of events implies."""
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 1.0))
    call.done(5.5, "r1", "i0")
    assert [leak.why for leak in call.hang_up().leaks] == ["the server reports another utterance for this answer"]


def test_sound_without_a_mark_is_a_leak_unless_it_is_a_seam() -> None:
    """If an answer contains 40 ms of noise without a mark, a leak of 40 ms is reported.

    This is longer than the single window of 10 ms that may lack a mark where two segments join (a seam).
    """
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 1.0))
    call.sounds(4.4, "r1", np.random.default_rng(1).normal(0, 2000, 960).astype("<i2").tobytes())
    call.done(5.5, "r1", "i1")
    [leak] = call.hang_up().leaks
    assert (leak.why, leak.found) == ("sound without a mark", (None,))
    assert leak.audio_s == pytest.approx(0.04)


def test_a_stale_transcript_is_detected() -> None:
    """If transcript and answer cover only the first of two phrases, the utterance is misheard, but there is no leak.

    The evidence states how many seconds were spoken and how many were transcribed.
    """
    call = ScriptedCall(TWO_PHRASES)
    call.takes(4.3, "i1", 0.75, 13)
    call.answers(4.3, "r1", (13, 1.0))
    call.done(5.5, "r1", "i1")
    found = call.hang_up()
    assert found.leaks == ()
    assert found.misheard == ("0.75-4.30 s: 2.70 s spoken, 1.3 s transcribed",)


def test_a_turn_that_ends_in_its_pause_is_premature() -> None:
    """If the server ends a turn in its pause, each half has its own answer, and neither answer is a leak."""
    call = ScriptedCall(TWO_PHRASES, ONE_PHRASE)
    call.takes(2.4, "i1", 0.75, 13)
    call.answers(2.4, "r1", (13, 0.2))
    call.done(2.6, "r1", "i1", status="cancelled")
    call.takes(4.3, "i2", 2.15, 13)
    call.answers(4.3, "r2", (13, 1.0))
    call.done(5.5, "r2", "i2")
    call.run(5.6)
    found = call.hang_up()
    assert (found.leaks, found.misheard) == ((), ())
    assert (found.utterances, found.premature) == (2, 1)
    assert found.unanswered == 1, "the second turn was never spoken"


def test_an_utterance_may_reach_into_the_next_phrase() -> None:
    """An utterance that ends just after the next phrase began is premature and does not contain that phrase."""
    call = ScriptedCall(TWO_PHRASES)
    call.takes(2.5, "i1", 0.75, 13)
    call.takes(4.3, "i2", 2.15, 13)
    call.answers(4.3, "r2", (13, 1.0))
    call.done(5.5, "r2", "i2")
    found = call.hang_up()
    assert (found.premature, found.leaks, found.misheard) == (1, (), ())


@pytest.mark.parametrize(("heard", "wrong"), [(-2, True), (-1, False), (3, False), (5, True)])
def test_a_transcript_may_be_longer_than_the_speech_by_what_voice_activity_lags(heard: int, wrong: bool) -> None:
    """A transcript may be 0.1 s too short or 0.3 s too long, but not 0.2 s too short or 0.5 s too long."""
    call = ScriptedCall(TWO_PHRASES)
    call.takes(4.3, "i1", 0.75, WHOLE_MARK + heard)
    assert bool(call.hang_up().misheard) is wrong


def test_a_dismissed_utterance_is_ignored() -> None:
    """An utterance that the server dismisses (`input_audio_buffer.cleared`) needs no transcript and is not counted."""
    call = whole_turn()
    call.answers(4.3, "r1", (WHOLE_MARK, 1.0))
    call.done(5.5, "r1", "i1")
    call.event(5.6, "input_audio_buffer.speech_started", item_id="i2", audio_start_ms=5400)
    call.event(5.8, "input_audio_buffer.speech_stopped", item_id="i2", audio_end_ms=5800)
    call.event(5.8, "input_audio_buffer.cleared")
    found = call.hang_up()
    assert (found.utterances, found.misheard) == (1, ())


def test_an_unanswered_turn_times_out() -> None:
    """The caller waits `ANSWER_S` seconds for an answer, counts the turn as unanswered and speaks the next turn."""
    call = ScriptedCall(ONE_PHRASE, ONE_PHRASE)
    call.run(1.0 + 1.08 + ANSWER_S - 0.1)
    assert call.caller.unanswered == set()
    call.run(2 * (1.0 + 1.08 + ANSWER_S) + 0.2)
    assert call.caller.over
    assert call.hang_up().unanswered == 2


def test_errors_of_the_server_are_faults() -> None:
    """The message of a server's error event is listed as a fault in the evidence."""
    call = ScriptedCall(ONE_PHRASE)
    call.event(0.5, "error", error={"message": "no"})
    assert call.hang_up().faults == ("no",)


@given(st.lists(st.sampled_from([0.2, 0.34, 0.64]), max_size=3))
def test_a_pause_is_as_long_as_its_script_says(pauses: list[float]) -> None:
    """Pauses in the speech that is sent are as long as the script's pauses, to one frame.

    A pause lasts from the end of one phrase's speech to the next phrase's speech, including silence in the clips.
    """
    call = ScriptedCall(TurnScript(0.1, (0,) * (len(pauses) + 1), tuple(pauses)))
    call.run(8.0)
    spoken = call.caller.spoken
    gaps = [following.start_s - phrase.end_s for phrase, following in pairwise(spoken)]
    assert gaps == pytest.approx(pauses, abs=FRAME_S)
    assert [phrase.last for phrase in spoken] == [False] * len(pauses) + [True]
    loud = [at for at, message in enumerate(call.sent) if message != SPEECH.silence]
    assert loud[-1] * FRAME_S == pytest.approx(spoken[-1].end_s, abs=3 * FRAME_S)


def test_scripts_are_seeded_and_hesitate_as_often_as_asked() -> None:
    """The same seed and caller give the same script, and another caller gives another script.

    With `hesitating=0.6`, 60% of the turns have pauses, with lengths within `PAUSE_S`.
    """
    turns = [turn for caller in range(50) for turn in script(1, caller=caller, turns=20, hesitating=0.6, phrases=9)]
    assert (
        script(1, caller=3, turns=20, hesitating=0.6, phrases=9)
        == script(1, caller=3, turns=20, hesitating=0.6, phrases=9)
        != script(1, caller=4, turns=20, hesitating=0.6, phrases=9)
    )
    assert sum(bool(turn.pauses) for turn in turns) == pytest.approx(600, abs=60)
    assert hesitations([turns]) > 600
    for turn in turns:
        assert len(turn.phrases) == len(turn.pauses) + 1
        assert THINK_S[0] <= turn.think_s <= THINK_S[1]
        assert all(PAUSE_S[0] - FRAME_S <= pause <= PAUSE_S[1] + FRAME_S for pause in turn.pauses)


def test_the_settings_are_valid_and_lift_every_limit_on_drafts() -> None:
    """In the bench's settings, recognizer, language model and voice are emulated, and answers and audio have marks.

    Speculative replies are on. Degradation and fillers are off.
    """
    settings = parse_settings(SETTINGS)
    assert {settings.stt.engine, settings.llm.engine, settings.tts.engine} == {"emulated"}
    assert settings.llm.emulation.marked
    assert settings.tts.emulation.marked
    assert settings.speculation.enabled
    assert not settings.degradation.enabled
    assert settings.conversation.filler_after_ms == 0


CLEAN = replace(NOTHING, turns=10, hesitant=6, utterances=10, judged_s=20.0)


def findings(evidence: Evidence = CLEAN, restarted: tuple[str, ...] = (), **drafts: float) -> DraftFindings:
    counts = {"begun": 18, "kept": 10, "discarded": 8, "discarded_ready": 5} | drafts
    host = idle_stage("host", drafts=counts)
    return DraftFindings(
        2, hesitations=8, evidence=evidence, stages={"host": host}, restarted=restarted, late_ms=1.0, took_s=60.0
    )


def test_it_passes_if_all_was_answered_and_drafts_were_discarded() -> None:
    """A run passes if the number of discarded drafts is at least half of its pauses and nothing else is wrong.

    Premature utterances do not fail a run.
    """
    assert findings().holds
    assert findings(begun=14, discarded=4).holds
    assert findings(replace(CLEAN, premature=2)).holds


@pytest.mark.parametrize(
    "run",
    [
        findings(begun=13, discarded=3),
        findings(discarded_ready=0),
        findings(begun=19),
        findings(restarted=("host#1",)),
        findings(replace(CLEAN, unanswered=1)),
        findings(replace(CLEAN, misheard=("",))),
        findings(replace(CLEAN, faults=("the call was lost",))),
        findings(replace(CLEAN, judged_s=0.0)),
        replace(findings(), stages={}),
    ],
    ids=["few", "none ready", "lost", "restarted", "unanswered", "misheard", "fault", "silent", "no counts"],
)
def test_it_fails(run: DraftFindings) -> None:
    """A run fails if too few drafts were discarded, or if begun drafts were neither kept nor discarded.

    It also fails if no discarded draft was ready to be sent, after a restarted replica, an unanswered turn, a wrong
    transcript or a lost call, if no audio was checked, or if the server reported no counts of drafts.
    """
    assert not run.holds


def test_one_leak_fails_the_run() -> None:
    """A single leak fails a run that is correct otherwise."""
    call = whole_turn()
    call.answers(4.3, "r1", (13, 0.5))
    assert not findings(CLEAN + call.hang_up()).holds
