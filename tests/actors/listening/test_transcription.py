"""Tests of transcripts for the client: deltas while the caller speaks, and sessions that only transcribe."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from actors.listening.end_of_turn import _joined
from actors.stages.ports import Transcript, WordTime
from rejoinder.core.turns.endpointing import DetectionMode
from rejoinder.core.turns.local_agreement import StreamedText
from rejoinder.core.wire.handshake import started
from rejoinder.core.wire.unserved import LOGPROBS
from tests.actors.asking import TURN, prompts, refused
from tests.actors.fakes import ScriptedStt
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"


def hearing(*texts: str) -> Play:
    """Return a scenario in which interim transcripts have these texts in order, and the final one has the last."""
    *interims, final = texts
    return Play(stt=ScriptedStt(texts=deque([final]), delay_s=0.05, interims=deque(interims)))


async def configure(caller: Caller, kind: str = "realtime", **audio_input: Any) -> dict[str, Any]:
    """Configure transcription in a session of type `kind`, and return the session of session.updated."""
    audio = {"input": {"transcription": {"model": "whisper-1"}} | audio_input}
    await caller.ask(type="session.update", session={"type": kind, "audio": audio})
    session: dict[str, Any] = (await caller.until("session.updated"))["session"]
    return session


def deltas(caller: Caller) -> str:
    """Return all transcription deltas joined, as a client shows them."""
    return "".join(event["delta"] for event in caller.of(DELTA))


@virtual
async def test_stable_words_come_while_the_caller_speaks() -> None:
    """Words that two interim transcripts share are sent before the end of speech.

    All deltas joined are the transcript.
    """
    play = hearing("What", "What time is", "What time is it", "What time is it now?", "What time is it now?")
    async with play.call() as caller:
        await configure(caller)
        await caller.speak(3.0)
        assert caller.of(DELTA), "no delta while the caller speaks"
        assert not caller.of("input_audio_buffer.speech_stopped")
        completed = await caller.listen(COMPLETED)
        assert completed["transcript"] == deltas(caller) == "What time is it now?"
        started_item = caller.of("input_audio_buffer.speech_started")[0]["item_id"]
        assert {event["item_id"] for event in caller.of(DELTA)} == {started_item} == {completed["item_id"]}


@virtual
async def test_a_delta_is_never_taken_back() -> None:
    """If the final transcript contradicts words that were sent, no more deltas are sent and the final one is whole."""
    play = hearing("I want to", "I want to go", "I want to go home", "He went home today.")
    async with play.call() as caller:
        await configure(caller)
        await caller.speak(2.5)
        sent = deltas(caller)
        completed = await caller.listen(COMPLETED)
    assert sent
    assert sent == deltas(caller)
    assert completed["transcript"] == "He went home today."


@virtual
async def test_without_transcription_there_are_no_deltas() -> None:
    """A client that has not configured transcription gets neither deltas nor the transcript."""
    async with hearing("What time", "What time is it", "What time is it?").call() as caller:
        await caller.say(2.5)
        assert not caller.of(DELTA) + caller.of(COMPLETED)


@virtual
async def test_words_of_a_dismissed_utterance_are_not_sent() -> None:
    """No delta has words of a backchannel over a reply, because the utterance becomes no turn."""
    stt = ScriptedStt(texts=deque(["What time is it?", "Mm-hmm."]), delay_s=0.05, interims=deque())
    async with Play(stt=stt).call() as caller:
        await configure(caller)
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        heard = deltas(caller)
        await caller.speak(0.6)
        await caller.listen("input_audio_buffer.cleared")
        assert deltas(caller) == heard == "What time is it?"


@virtual
async def test_a_transcription_session_never_replies() -> None:
    """Each turn is transcribed and has the usual events, and no word of the caller reaches the language model."""
    play = hearing("Hello", "Hello there", "Hello there my", "Hello there, my friend.")
    async with play.call() as caller:
        session = await configure(caller, "transcription")
        assert session["type"] == "transcription"
        assert session["object"] == "realtime.transcription_session"
        assert "instructions" not in session
        assert "output" not in session["audio"]
        for _ in range(2):
            await caller.speak(2.0)
            await caller.hush(3.0)
        assert [event["transcript"] for event in caller.of(COMPLETED)] == ["Hello there, my friend."] * 2
        assert not [kind for kind in caller.types if kind.startswith("response.")]
        assert [kind for kind in caller.types if kind in TURN][:5] == TURN
    assert prompts(play) == []
    assert all(len(request.messages) == 1 for request in play.llm.prefills), "words of the caller were prefilled"


@virtual
async def test_a_transcription_session_with_manual_turns() -> None:
    """With turn_detection null the client ends turns, as Pipecat does: a commit gives the words, also as one delta."""
    play = hearing("Hello there.")
    async with play.call() as caller:
        session = await configure(caller, "transcription", turn_detection=None)
        assert session["audio"]["input"]["turn_detection"] is None
        await caller.speak(1.0)
        await caller.ask(type="input_audio_buffer.commit")
        completed = await caller.until(COMPLETED)
        assert completed["transcript"] == deltas(caller) == "Hello there."


@virtual
async def test_a_model_without_turn_detection_leaves_turns_to_the_client() -> None:
    """For OpenAI's streaming models the client ends turns, unless it asks for turn detection.

    LiveKit sends no turn_detection with them, and ends a session at the error of a commit after the server's.
    """
    async with hearing("Hello there.").call() as caller:
        session = await configure(caller, "transcription", transcription={"model": "gpt-realtime-whisper"})
        assert session["audio"]["input"]["turn_detection"] is None
        await caller.speak(1.0)
        await caller.hush(3.0)
        assert not caller.of("input_audio_buffer.committed")
        await caller.ask(type="input_audio_buffer.commit")
        assert (await caller.until(COMPLETED))["transcript"] == "Hello there."
        detection = {"type": "server_vad"}
        audio = {"input": {"turn_detection": detection}}
        await caller.ask(type="session.update", session={"type": "transcription", "audio": audio})
        updated = await caller.until("session.updated", 2)
        assert updated["session"]["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    query = {"intent": "transcription", "model": "gpt-realtime-whisper"}
    assert started({}, query).detection.mode is DetectionMode.NONE


@virtual
async def test_a_transcription_session_refuses_responses_and_their_fields() -> None:
    """response.create is refused. Fields of replies in an update get an error each, and the rest takes effect."""
    async with Play().call() as caller:
        await configure(caller, "transcription")
        error = await refused(caller, type="response.create")
        assert error["code"] == "unsupported_event"
        error = await refused(
            caller,
            type="session.update",
            session={
                "type": "transcription",
                "instructions": "Be brief.",
                "audio": {"input": {"turn_detection": None}},
            },
        )
        assert error["param"] == "session.instructions"
        updated = await caller.until("session.updated", 2)
        assert updated["session"]["audio"]["input"]["turn_detection"] is None


@virtual
async def test_word_times_and_segments_if_the_client_asks() -> None:
    """`include` asks for times of words, in `rejoinder.words` of completed, and for one segment event a sentence."""
    include = ["item.input_audio_transcription.words", "item.input_audio_transcription.segments"]
    async with hearing("Hello there. How nice!").call() as caller:
        await caller.ask(type="session.update", session={"type": "transcription", "include": include})
        await caller.speak(2.0)
        completed = await caller.listen(COMPLETED)
        words = completed["rejoinder"]["words"]
        assert [word["word"] for word in words] == ["Hello", "there.", "How", "nice!"]
        assert words[1] == {"word": "there.", "start": 0.5, "end": 1.0}
        segments = caller.of("conversation.item.input_audio_transcription.segment")
        assert [(event["text"], event["start"], event["end"]) for event in segments] == [
            ("Hello there.", 0.0, 1.0),
            ("How nice!", 1.0, 2.0),
        ]
        assert {event["item_id"] for event in segments} == {completed["item_id"]}
        await caller.ask(type="session.update", session={"type": "transcription", "include": []})
        await caller.speak(2.0)
        assert "rejoinder" not in await caller.listen(COMPLETED, 2)
        error = await refused(caller, type="session.update", session={"type": "transcription", "include": [LOGPROBS]})
        assert error["param"] == "session.include"


@virtual
async def test_a_conversation_has_no_word_times() -> None:
    """A session with replies is told that it gets no times of words: they would delay its replies."""
    play = Play()
    async with play.call() as caller:
        words = ["item.input_audio_transcription.words"]
        error = await refused(caller, type="session.update", session={"type": "realtime", "include": words})
        assert error["param"] == "session.include"
        await caller.say()
    assert not any(job.word_times for job in play.stt.jobs)


def test_word_times_of_joined_windows() -> None:
    """Times count from the start of the first window, and a word that two windows share comes once."""
    left = Transcript("a b", 10_000, 0, 0, avg_logprob=-0.1, words=(WordTime("a", 1, 2), WordTime("b", 9.2, 9.4)))
    right = Transcript("b c", 5_000, 0, 0, avg_logprob=-0.1, words=(WordTime("b", 0.7, 0.9), WordTime("c", 3, 4)))
    assert [word.word for word in _joined(left, right, overlaps=True).words] == ["a", "b", "c"]
    joined = _joined(left, right, overlaps=False).words
    assert joined[-1] == WordTime("c", 13, 14)
    assert _joined(replace(left, words=()), right, overlaps=False).words == ()


@virtual
async def test_the_type_of_a_session_is_fixed_once_it_has_items() -> None:
    """A session changes its type before its first item, and not after it."""
    async with Play().call() as caller:
        await configure(caller, "transcription")
        await caller.speak(1.0)
        await caller.listen(COMPLETED)
        error = await refused(caller, type="session.update", session={"type": "realtime"})
        assert error["param"] == "session.type"


def test_the_address_asks_for_a_transcription() -> None:
    """intent=transcription opens a transcription session, with or without the name of a model."""
    config = started({}, {"intent": "transcription", "model": "gpt-4o-transcribe"})
    assert config.transcribes_only
    assert config.transcription == {"model": "gpt-4o-transcribe"}
    assert started({}, {"intent": "transcription"}).transcription == {}
    assert started({}, {"deployment": "mine"}).model == "mine"
    assert not started({}, {"model": "m", "intent": "conversation"}).transcribes_only
    assert started({"type": "transcription"}, {}).transcribes_only


@pytest.mark.parametrize(
    ("stable", "final", "rest"),
    [
        ((), "Hello there.", "Hello there."),
        (("Hello,",), "hello there.", " there."),
        (("Hello", "there"), "Hello there.", ""),
        (("Hello", "there"), "Hello", ""),
        (("Hello", "there"), "Yellow there now", ""),
        ((), "", ""),
    ],
)
def test_the_rest_of_the_transcript(stable: tuple[str, ...], final: str, rest: str) -> None:
    """The final transcript adds its words after those that were sent, unless it contradicts them."""
    text, sent = StreamedText().grown(stable)
    assert sent == " ".join(stable)
    assert text.rest(final) == rest
    assert text.grown(stable) == (text, "")
