"""Tests of spoken text in a conversation: what the voice gets, and what the transcript and the history keep."""

from __future__ import annotations

import pytest

from rejoinder.core.settings.settings import Settings
from tests.actors.asking import message, prompts
from tests.actors.fakes import WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


async def spoken(answer: str) -> tuple[Play, str, str]:
    """Let the model answer a spoken question with `answer`.

    Return the play, the transcript's deltas as one text, and the text of the answer in the history.
    """
    play = Play(llm=WordyLlm(answer=answer))
    async with play.call() as caller:
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        await caller.say()
    (history,) = (text for role, text in prompts(play)[-1] if role == "assistant")
    return (
        play,
        caller.transcript.removesuffix(caller.of("response.output_audio_transcript.done")[-1]["transcript"]),
        history,
    )


@virtual
async def test_the_voice_gets_spoken_words_and_the_transcript_the_written_ones() -> None:
    """Numbers and links reach text-to-speech as words; the transcript and the history have the written text."""
    answer = "Dr. Lee owes $5 million. See [the docs](https://example.com/a)."
    play, transcript, history = await spoken(answer)
    assert play.tts.texts[:2] == ["Doctor Lee owes five million dollars.", "See the docs."]
    assert transcript == history == answer


@virtual
async def test_reasoning_and_tool_syntax_are_hidden() -> None:
    """Blocks of reasoning and tool calls, split over deltas, are in neither speech, transcript nor history."""
    answer = 'Well. <think>The user asks about time, say 5.</think> It is noon. <tool_call> {"name": "f"} </tool_call>'
    play, transcript, history = await spoken(answer)
    assert play.tts.texts[:2] == ["Well.", "It is noon."]
    assert transcript.split() == history.split() == ["Well.", "It", "is", "noon."]


@virtual
async def test_reasoning_is_hidden_in_text_replies() -> None:
    """A text reply omits the reasoning block from its deltas and from its item."""
    play = Play(llm=WordyLlm(answer="<think> Let me see. </think>It is noon."))
    async with play.call() as caller:
        await caller.ask(type="conversation.item.create", item=message("Hello."))
        await caller.ask(type="response.create", response={"output_modalities": ["text"]})
        done = await caller.until("response.done")
    assert "".join(event["delta"] for event in caller.of("response.output_text.delta")) == "It is noon."
    assert done["response"]["output"][0]["content"] == [{"type": "output_text", "text": "It is noon."}]


@virtual
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Here\x00 you are.", ["Here you are."]),
        ("Look: " + "a" * 3000 + " done.", ["Look: a word that is too long to read aloud done."]),
        ("你" * 2500, ["some Chinese text that I cannot read aloud"]),
        ("你好 " * 60, ["some Chinese text that I cannot read aloud"]),
    ],
)
async def test_text_that_cannot_be_read_is_noted_once(answer: str, said: list[str]) -> None:
    """Control characters are not spoken. A very long word, or text in a foreign script, is replaced by one spoken note.

    The reply still completes, and the history has the written text.
    """
    play, _, history = await spoken(answer)
    assert play.tts.texts[: len(said)] == said
    assert play.tts.texts == said * 2
    assert history == answer.replace("\x00", "").strip()


@virtual
async def test_a_long_text_without_full_stops_is_said_in_parts() -> None:
    """Text of 900 words without punctuation is synthesized in segments of at most 500 characters, without cut words."""
    answer = " ".join(["word"] * 900)
    play = Play(
        llm=WordyLlm(answer=answer, gap_s=0.0),
        settings=Settings.model_validate({"conversation": {"max_reply_tokens": 1000}}),
    )
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.hush(2.0)
        await caller.listen("response.output_audio.delta", 20)
        assert max(map(len, play.tts.texts)) <= 500
        assert all(set(text.split()) == {"word"} for text in play.tts.texts)


@virtual
@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.7, 0.9])
async def test_a_truncated_item_keeps_written_text(share: float) -> None:
    """After conversation.item.truncate, the item has the written words whose speech was played up to that position.

    The fake voice speaks 80 ms per character, and the position is at `share` of the answer's audio.
    """
    answer = "It costs $1,234.50 today."
    speech = "It costs one thousand two hundred thirty-four dollars and fifty cents today."
    play = Play(llm=WordyLlm(answer=answer))
    async with play.call() as caller:
        await caller.say()
        assert "".join(f"{text} " for text in play.tts.texts).strip() == speech
        item = caller.of("conversation.item.added")[-1]["item"]["id"]
        length_ms = len(speech) * 80
        await caller.ask(
            type="conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=round(length_ms * share)
        )
        await caller.until("conversation.item.truncated")
        await caller.say()
    heard = [text for role, text in prompts(play)[-1] if role == "assistant"]
    price_ends = len(speech) - len(" today.")
    expected = "It costs" if len(speech) * share < price_ends else "It costs $1,234.50"
    assert heard == [expected]
