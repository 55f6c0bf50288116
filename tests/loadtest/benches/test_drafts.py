"""The drafts bench's pure parts: what hesitant callers say, how they wait, and what is held against what."""

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
from loadtest.generator.stage_metrics import Histogram, StageCounts
from loadtest.scenario.utterances import FRAME_S, encode
from rejoinder.core.audio.pcm import float_to_pcm16
from rejoinder.core.measuring import audio_watermark as marking
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.wire.formats import AudioFormat
from tests.loadtest.callers.scene import clip

MARGIN_S, PHRASE_S = 0.04, 1.0
SPEECH = encode([clip("a", PHRASE_S, MARGIN_S, MARGIN_S)], AudioFormat.PCM)
TWO_PHRASES = TurnScript(1.0, (0, 0), (0.4,))
ONE_PHRASE = TurnScript(1.0, (0,), ())


class Line:
    """A caller and a server whose events are written by hand; times are the stream's."""

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
        """The server takes an utterance, with a transcript of so many tenths of a second."""
        edges = {"audio_start_ms": round(start_s * 1000)}, {"audio_end_ms": round(at * 1000)}
        for kind, edge in zip(("speech_started", "speech_stopped"), edges, strict=True):
            self.event(at, f"input_audio_buffer.{kind}", item_id=item, **edge)
        self.event(at, "input_audio_buffer.committed", item_id=item)
        text = marking.transcript(heard / 10, ".")
        kind = "conversation.item.input_audio_transcription.completed"
        self.event(at, kind, item_id=item, transcript=text)

    def answers(self, at: float, key: str, *sounds: tuple[int, float], words: int | None = None) -> None:
        """An answer of so many seconds of so many marks, which names the first in words, and is complete."""
        self.event(at, "response.created", response={"id": key})
        said = " ".join(marking.answer(sounds[0][0] if words is None else words))
        self.event(at, "response.output_audio_transcript.delta", response_id=key, delta=said)
        for mark, seconds in sounds:
            self.sounds(at, key, float_to_pcm16(0.14 * np.resize(marking.tone(mark), round(seconds * 24_000))))

    def sounds(self, at: float, key: str, pcm: bytes) -> None:
        delta = base64.b64encode(pcm).decode()
        self.event(at, "response.output_audio.delta", response_id=key, delta=delta)

    def done(self, at: float, key: str, item: str | None, status: str = "completed") -> None:
        response = {"id": key, "status": status}
        self.event(at, "response.done", response=response, rejoinder={"item_id": item})

    def proves(self) -> Evidence:
        self.caller.hang_up()
        return evidence(self.caller, self.turns)


# Phrases begin at 1.04 and 2.44 s; the turn's speech ends at 3.44 s and is 2.4 s long.
HEARD = round((2.4 + PADDING_S) * 10)


def whole_turn() -> Line:
    line = Line(TWO_PHRASES)
    line.takes(4.3, "i1", 0.75, HEARD)
    return line


def test_a_good_turn_proves_that_all_was_as_it_should_be() -> None:
    """One utterance with both phrases, answered with its own mark in two segments."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 1.23), (HEARD, 0.91))
    line.done(6.0, "r1", "i1")
    line.run(6.1)
    found = line.proves()
    assert (found.leaks, found.misheard, found.faults) == ((), (), ())
    assert (found.turns, found.hesitant, found.unanswered, found.utterances, found.premature) == (1, 1, 0, 1, 0)
    assert line.caller.over
    assert found.judged_s == pytest.approx(2.14, abs=0.011)


def test_sound_of_an_earlier_revision_is_a_leak_however_short() -> None:
    """Thirty milliseconds of the first phrase's answer before the right one; the words are right."""
    line = whole_turn()
    line.answers(4.3, "r1", (13, 0.03), (HEARD, 2.0), words=HEARD)
    line.done(6.5, "r1", "i1")
    [leak] = line.proves().leaks
    assert (leak.turn, leak.expected, leak.found) == (0, HEARD, (13,))
    assert leak.audio_s == pytest.approx(0.03)


def test_wrong_words_are_a_leak_beside_right_sound() -> None:
    """Captions of a discarded draft are seen too."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 2.0), words=13)
    line.done(6.5, "r1", "i1")
    [leak] = line.proves().leaks
    assert (leak.why, leak.found, leak.audio_s) == ("words of another revision", (13,), 0.0)


def test_sound_before_any_turn_was_taken_is_a_leak() -> None:
    """In the pause, before the first commit."""
    line = Line(TWO_PHRASES)
    line.answers(2.3, "r1", (13, 0.5))
    found = line.proves()
    assert {leak.why for leak in found.leaks} == {"sound before any turn was taken", "words of another revision"}
    assert found.unanswered == 1


def test_a_second_answer_to_an_utterance_is_a_leak_even_with_its_mark() -> None:
    """A draft that is let out beside the answer sounds like the turn before, if both are as long."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 1.0))
    line.done(5.5, "r1", "i1")
    line.answers(5.6, "r2", (HEARD, 1.0))
    assert [leak.why for leak in line.proves().leaks] == ["a second answer to one utterance"]


def test_an_answer_that_names_another_utterance_is_a_leak() -> None:
    """The server's own report must agree with the order of its events."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 1.0))
    line.done(5.5, "r1", "i0")
    assert [leak.why for leak in line.proves().leaks] == ["it says that it answers another utterance"]


def test_sound_without_a_mark_is_a_leak_unless_it_is_a_seam() -> None:
    """Noise of three windows names no revision; a jump between two segments spoils one window."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 1.0))
    line.sounds(4.4, "r1", np.random.default_rng(1).normal(0, 2000, 960).astype("<i2").tobytes())
    line.done(5.5, "r1", "i1")
    [leak] = line.proves().leaks
    assert (leak.why, leak.found) == ("sound that names no revision", (None,))
    assert leak.audio_s == pytest.approx(0.04)


def test_a_transcript_that_is_not_of_what_was_said_is_seen() -> None:
    """A stale transcript with its stale answer agrees with itself; what the caller spoke does not."""
    line = Line(TWO_PHRASES)
    line.takes(4.3, "i1", 0.75, 13)
    line.answers(4.3, "r1", (13, 1.0))
    line.done(5.5, "r1", "i1")
    found = line.proves()
    assert found.leaks == ()
    assert found.misheard == ("0.75-4.30 s: 2.70 s were said, 1.3 s heard",)


def test_a_turn_that_is_taken_in_its_pause_is_premature_and_judged_like_the_rest() -> None:
    """Each half is an utterance with an answer of its own; the turn is answered when its second half is."""
    line = Line(TWO_PHRASES, ONE_PHRASE)
    line.takes(2.4, "i1", 0.75, 13)
    line.answers(2.4, "r1", (13, 0.2))
    line.done(2.6, "r1", "i1", status="cancelled")
    line.takes(4.3, "i2", 2.15, 13)
    line.answers(4.3, "r2", (13, 1.0))
    line.done(5.5, "r2", "i2")
    line.run(5.6)
    found = line.proves()
    assert (found.leaks, found.misheard) == ((), ())
    assert (found.utterances, found.premature) == (2, 1)
    assert found.unanswered == 1, "the second turn was never spoken"


def test_a_turn_taken_as_the_caller_goes_on_is_premature() -> None:
    """Its end reaches into the next phrase's first sound, which is heard as the next utterance."""
    line = Line(TWO_PHRASES)
    line.takes(2.5, "i1", 0.75, 13)
    line.takes(4.3, "i2", 2.15, 13)
    line.answers(4.3, "r2", (13, 1.0))
    line.done(5.5, "r2", "i2")
    found = line.proves()
    assert (found.premature, found.leaks, found.misheard) == (1, (), ())


@pytest.mark.parametrize(("heard", "wrong"), [(-2, True), (-1, False), (3, False), (5, True)])
def test_a_transcript_may_be_longer_than_the_speech_by_what_voice_activity_lags(heard: int, wrong: bool) -> None:
    """In tenths of a second beside the truth."""
    line = Line(TWO_PHRASES)
    line.takes(4.3, "i1", 0.75, HEARD + heard)
    assert bool(line.proves().misheard) is wrong


def test_what_was_no_utterance_is_forgotten() -> None:
    """A dismissed utterance has no transcript and needs none."""
    line = whole_turn()
    line.answers(4.3, "r1", (HEARD, 1.0))
    line.done(5.5, "r1", "i1")
    line.event(5.6, "input_audio_buffer.speech_started", item_id="i2", audio_start_ms=5400)
    line.event(5.8, "input_audio_buffer.speech_stopped", item_id="i2", audio_end_ms=5800)
    line.event(5.8, "input_audio_buffer.cleared")
    found = line.proves()
    assert (found.utterances, found.misheard) == (1, ())


def test_a_turn_that_nobody_answers_is_waited_for_and_told() -> None:
    """The caller goes on behind it, so the call ends in bounded time."""
    line = Line(ONE_PHRASE, ONE_PHRASE)
    line.run(1.0 + 1.08 + ANSWER_S - 0.1)
    assert line.caller.unanswered == set()
    line.run(2 * (1.0 + 1.08 + ANSWER_S) + 0.2)
    assert line.caller.over
    assert line.proves().unanswered == 2


def test_errors_of_the_server_are_told() -> None:
    """They do not hide behind good audio."""
    line = Line(ONE_PHRASE)
    line.event(0.5, "error", error={"message": "no"})
    assert line.proves().faults == ("no",)


@given(st.lists(st.sampled_from([0.2, 0.34, 0.64]), max_size=3))
def test_a_pause_is_as_long_as_its_script_says(pauses: list[float]) -> None:
    """From the last sample of speech to the next, to a frame: the clips' own margins are a part of it."""
    line = Line(TurnScript(0.1, (0,) * (len(pauses) + 1), tuple(pauses)))
    line.run(8.0)
    spoken = line.caller.spoken
    gaps = [behind.start_s - before.end_s for before, behind in pairwise(spoken)]
    assert gaps == pytest.approx(pauses, abs=FRAME_S)
    assert [phrase.last for phrase in spoken] == [False] * len(pauses) + [True]
    loud = [at for at, message in enumerate(line.sent) if message != SPEECH.silence]
    assert loud[-1] * FRAME_S == pytest.approx(spoken[-1].end_s, abs=3 * FRAME_S)


def test_scripts_are_seeded_and_hesitate_as_often_as_asked() -> None:
    """The same seed says the same; no two callers do; pauses lie inside their bounds."""
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
    """Every engine that says something is emulated and marked; no policy, no filler."""
    settings = parse_settings(SETTINGS)
    assert {settings.stt.engine, settings.llm.engine, settings.tts.engine} == {"emulated"}
    assert settings.llm.emulation.marked
    assert settings.tts.emulation.marked
    assert settings.speculation.enabled
    assert not settings.degradation.enabled
    assert settings.conversation.filler_after_ms == 0


CLEAN = replace(NOTHING, turns=10, hesitant=6, utterances=10, judged_s=20.0)


def found(seen: Evidence = CLEAN, restarted: tuple[str, ...] = (), **drafts: float) -> DraftFindings:
    counts = {"begun": 18, "kept": 10, "discarded": 8, "discarded_ready": 5} | drafts
    host = StageCounts(
        "host",
        replicas=1,
        queue=Histogram(),
        service=Histogram(),
        requests=0,
        cpu_s=0,
        memory_mb=0,
        ends={},
        drafts=counts,
    )
    return DraftFindings(
        2, hesitations=8, evidence=seen, stages={"host": host}, restarted=restarted, late_ms=1.0, took_s=60.0
    )


def test_it_holds_if_all_was_answered_and_drafts_were_really_discarded() -> None:
    """Half of the pauses that discarded a draft are enough; a premature end is another matter."""
    assert found().holds
    assert found(begun=14, discarded=4).holds
    assert found(replace(CLEAN, premature=2)).holds


@pytest.mark.parametrize(
    "run",
    [
        found(begun=13, discarded=3),
        found(discarded_ready=0),
        found(begun=19),
        found(restarted=("host#1",)),
        found(replace(CLEAN, unanswered=1)),
        found(replace(CLEAN, misheard=("",))),
        found(replace(CLEAN, faults=("the call was lost",))),
        found(replace(CLEAN, judged_s=0.0)),
        replace(found(), stages={}),
    ],
    ids=["few", "none ready", "lost", "restarted", "unanswered", "misheard", "fault", "silent", "no counts"],
)
def test_it_does_not_hold(run: DraftFindings) -> None:
    """Too little was tried, a draft is not accounted for, or what was heard says nothing."""
    assert not run.holds


def test_one_leak_fails_the_run() -> None:
    """However much else was right."""
    line = whole_turn()
    line.answers(4.3, "r1", (13, 0.5))
    assert not found(CLEAN + line.proves()).holds
