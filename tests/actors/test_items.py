"""Tests of conversation items that a client creates, deletes, retrieves and truncates."""

from __future__ import annotations

import base64
from collections import deque

from tests.actors.asking import ids, message, prompts, refused
from tests.actors.fakes import ScriptedStt
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


@virtual
async def test_items_stand_where_the_client_puts_them() -> None:
    """A client can append items, or insert them at the start or after another item.

    The events have as `previous_item_id` the item before the new one.
    """
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("b", id="b"))
        await caller.ask(type="conversation.item.create", item=message("a", id="a"), previous_item_id="root")
        await caller.ask(type="conversation.item.create", item=message("d", "assistant", id="d"))
        await caller.ask(type="conversation.item.create", item=message("c", "system", id="c"), previous_item_id="b")
        await caller.until("conversation.item.done", 4)
        assert ids(caller) == ["a", "b", "c", "d"]
        assert [event["previous_item_id"] for event in caller.of("conversation.item.added")] == [None, None, "b", "b"]


@virtual
async def test_a_tool_result_reaches_the_model() -> None:
    """Function calls and outputs that a client adds are stored, echoed and part of the prompt."""
    play = Play()
    async with play.call() as caller:
        call = {"type": "function_call", "id": "f", "call_id": "c1", "name": "time", "arguments": "{}"}
        await caller.ask(type="conversation.item.create", item=call)
        output = {"type": "function_call_output", "call_id": "c1", "output": "12:00"}
        await caller.ask(type="conversation.item.create", item=output)
        await caller.ask(type="response.create", response={"output_modalities": ["text"]})
        await caller.until("response.done")
    assert caller.of("conversation.item.added")[0]["item"]["arguments"] == "{}"
    assert prompts(play)[0] == [("assistant", ""), ("tool", "12:00")]
    called, result = play.llm.requests[0][1].messages[1:]
    assert [(made.name, made.call_id) for made in called.calls] == [("time", "c1")]
    assert result.call_id == "c1"


@virtual
async def test_errors_about_items_change_nothing() -> None:
    """Items with duplicate or unknown ids, images, or neither audio nor transcript get OpenAI's error code and change
    nothing.
    """
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("a", id="a"))
        error = await refused(caller, type="conversation.item.create", item=message("again", id="a"))
        assert error["code"] == "item_create_duplicate_item_id"
        error = await refused(caller, type="conversation.item.create", item=message("b"), previous_item_id="nobody")
        assert error["param"] == "previous_item_id"
        error = await refused(caller, type="conversation.item.retrieve", item_id="nobody")
        assert error["code"] == "item_retrieve_invalid_item_id"
        assert (await refused(caller, type="conversation.item.delete", item_id="nobody"))["param"] == "item_id"
        image = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}
        assert (await refused(caller, type="conversation.item.create", item=image))["code"] == "unsupported_content"
        audio = {"type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        assert (await refused(caller, type="conversation.item.create", item=audio))["code"] == "unsupported_content"
        assert ids(caller) == ["a"]


@virtual
async def test_a_full_conversation_refuses_items_but_not_the_caller() -> None:
    """If the conversation is full, items of the client are refused. Spoken turns of the caller are still added."""
    async with Play().call() as caller:
        for _ in range(2000):
            await caller.ask(type="conversation.item.create", item=message("x"))
        assert (await refused(caller, type="conversation.item.create", item=message("x")))["param"] == "item"
        done = await caller.say()
        assert done["response"]["status"] == "completed"
        assert len(ids(caller)) == 2002


@virtual
async def test_a_deleted_item_is_forgotten() -> None:
    """A deleted item is no longer in the prompt."""
    play = Play()
    async with play.call() as caller:
        for text in ("a", "b"):
            await caller.ask(type="conversation.item.create", item=message(text, id=text))
        await caller.ask(type="conversation.item.delete", item_id="a")
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert caller.of("conversation.item.deleted")[0]["item_id"] == "a"
    assert prompts(play) == [[("user", "b")]]


@virtual
async def test_a_reply_deleted_while_it_is_spoken_stays_deleted() -> None:
    """If the client deletes the item of a reply that is being spoken, the response ends as usual, the item is not added
    again, and no conversation.item.done names it.
    """
    async with Play().call() as caller:
        await caller.ask(type="response.create")
        await caller.until("response.output_audio.delta")
        await caller.ask(type="conversation.item.delete", item_id=caller.of("conversation.item.added")[0]["item"]["id"])
        await caller.until("response.done")
        assert ids(caller) == []


@virtual
async def test_retrieve_shows_the_transcript() -> None:
    """For a spoken item, conversation.item.added has a null transcript and conversation.item.retrieved the words."""
    async with Play().call() as caller:
        await caller.say()
        question = caller.of("conversation.item.added")[0]["item"]
        assert question["content"] == [{"type": "input_audio", "transcript": None}]
        await caller.ask(type="conversation.item.retrieve", item_id=question["id"])
        retrieved = await caller.until("conversation.item.retrieved")
        assert retrieved["item"]["content"] == [{"type": "input_audio", "transcript": "What time is it?"}]


@virtual
async def test_a_client_item_with_our_next_id_is_replaced() -> None:
    """If a client's item has the id of the caller's next turn, that item is deleted and the turn is answered."""
    play = Play()
    async with play.call() as caller:
        for number in range(7, 13):
            await caller.ask(type="conversation.item.create", item=message("mine", id=f"item_test_{number:04d}"))
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert prompts(play)[0][-1] == ("user", "What time is it?")
    assert len(caller.of("conversation.item.deleted")) == 2


@virtual
async def test_truncate_corrects_what_was_heard() -> None:
    """After a barge-in, conversation.item.truncate sets which words of the reply were heard.

    A position slightly after the end of the audio counts as the end. One far after it is refused.
    """
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(3.0)
        await caller.speak(1.0)
        cut = await caller.until("response.done")
        item_id = cut["response"]["output"][0]["id"]
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
        truncated = await caller.until("conversation.item.truncated")
        await caller.listen("response.done", 2)
        assert truncated["audio_end_ms"] == 1000
        assert prompts(play)[1][1] == ("assistant", "It is noon.")
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=3500)
        await caller.until("conversation.item.truncated", 2)
        error = await refused(
            caller, type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=30_000
        )
        assert error["param"] == "audio_end_ms"


@virtual
async def test_a_completed_reply_can_be_truncated() -> None:
    """A truncate after response.done removes the unheard words from the prompt."""
    play = Play()
    async with play.call() as caller:
        done = await caller.say()
        item_id = done["response"]["output"][0]["id"]
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0)
        await caller.until("conversation.item.truncated")
        await caller.ask(type="conversation.item.retrieve", item_id=item_id)
        assert (await caller.until("conversation.item.retrieved"))["item"]["content"] == []
        await caller.hush(8)
        await caller.say()
    assert [role for role, _ in prompts(play)[1]] == ["user", "user"]


@virtual
async def test_a_truncation_stops_the_running_reply() -> None:
    """A truncate while a reply is spoken cancels it: no audio follows, and the history keeps the heard words only.

    openai-agents' `interrupt()` sends nothing else.
    """
    play = Play()
    async with play.call() as caller:
        await caller.speak(1.0)
        delta = await caller.listen("response.output_audio.delta")
        await caller.hush(1.5)
        item_id = delta["item_id"]
        await caller.ask(type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
        await caller.until("conversation.item.truncated")
        done = caller.of("response.done")[0]["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")
        heard = len(caller.audio)
        await caller.hush(20)
        assert len(caller.audio) == heard
        await caller.say()
    assert prompts(play)[1][1] == ("assistant", "It is noon.")


@virtual
async def test_a_truncation_at_speech_started_does_not_end_a_resumed_reply() -> None:
    """A client that truncates when speech starts over a reply still hears its rest if the speech was a backchannel.

    A second truncation, by the application, stops the resumed reply.
    """
    stt = ScriptedStt(texts=deque(["What time is it?", "Mm-hmm."]))
    async with Play(stt=stt).call() as caller:
        await caller.speak(1.0)
        delta = await caller.listen("response.output_audio.delta")
        await caller.hush(1.0)
        cut = {"type": "conversation.item.truncate", "item_id": delta["item_id"], "content_index": 0}
        await caller.speak(0.5)
        await caller.ask(**cut, audio_end_ms=1000)
        await caller.listen("input_audio_buffer.cleared")
        assert not caller.of("response.done")
        await caller.hush(2.0)
        await caller.ask(**cut, audio_end_ms=1500)
        done = await caller.until("response.done")
        assert done["response"]["status"] == "cancelled"


@virtual
async def test_a_recording_in_an_item_is_heard() -> None:
    """An item with audio and no transcript is transcribed, and the next response answers its words."""
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "audio": {"input": {"transcription": {}}}})
        clip = {"type": "input_audio", "audio": base64.b64encode(bytes(64_000)).decode()}
        item = {"id": "clip", "type": "message", "role": "user", "content": [clip]}
        await caller.ask(type="conversation.item.create", item=item)
        await caller.ask(type="response.create")
        added = await caller.until("conversation.item.added")
        assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
        completed = await caller.until("conversation.item.input_audio_transcription.completed")
        assert (completed["item_id"], completed["transcript"]) == ("clip", "What time is it?")
        assert completed["usage"]["seconds"] == 2
        await caller.until("response.done")
        assert caller.session.context.services.stored.used < 1000, "the recording is still counted"
    assert prompts(play) == [[("user", "What time is it?")]]
    assert [len(job.pcm) for job in play.stt.jobs] == [64_000]


@virtual
async def test_a_long_recording_is_transcribed_in_windows() -> None:
    """A recording that is longer than one window of the recognizer is transcribed as a whole."""
    play = Play()
    async with play.call() as caller:
        clip = {"type": "input_audio", "audio": base64.b64encode(bytes(32_000 * 50)).decode()}
        item = {"id": "clip", "type": "message", "role": "user", "content": [clip]}
        await caller.ask(type="conversation.item.create", item=item)
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert sum(len(job.pcm) for job in play.stt.jobs) >= 32_000 * 50
    assert len(play.stt.jobs) >= 3


@virtual
async def test_too_many_recordings_are_refused() -> None:
    """Of many recordings at once the fifth is refused, and no item is made of it."""
    async with Play().call() as caller:
        clip = {"type": "input_audio", "audio": base64.b64encode(bytes(64_000)).decode()}
        item = {"type": "message", "role": "user", "content": [clip]}
        for _ in range(4):
            await caller.ask(type="conversation.item.create", item=item)
        assert (await refused(caller, type="conversation.item.create", item=item))["code"] == "rate_limit_exceeded"
        assert len(ids(caller)) == 4


@virtual
async def test_a_given_transcript_is_used_and_sent_back() -> None:
    """Audio with a transcript is not transcribed: its transcript is in the events and in the prompt."""
    play = Play()
    async with play.call() as caller:
        clip = {"type": "input_audio", "audio": "AAAA", "transcript": "Hello."}
        await caller.ask(type="conversation.item.create", item={"type": "message", "role": "user", "content": [clip]})
        added = await caller.until("conversation.item.added")
        assert added["item"]["content"] == [{"type": "input_audio", "transcript": "Hello."}]
        await caller.ask(type="response.create")
        await caller.until("response.done")
    assert prompts(play) == [[("user", "Hello.")]]
    assert play.stt.jobs == []


@virtual
async def test_a_client_replays_its_history() -> None:
    """A client that connects again creates each item of its history after the one before, the first one at "root".

    LiveKit does so every 20 minutes. The order is kept, also of a tool call and its result, and the prompt has all.
    """
    play = Play()
    call = {"type": "function_call", "id": "c", "call_id": "call_1", "name": "time", "arguments": "{}"}
    result = {"type": "function_call_output", "id": "d", "call_id": "call_1", "output": "12:00"}
    messages = message("a", "system", id="a"), message("b", id="b"), message("e", "assistant", id="e")
    history: list[dict[str, object]] = [*messages[:2], {**call}, {**result}, messages[2]]
    async with play.call() as caller:
        before = "root"
        for item in history:
            await caller.ask(type="conversation.item.create", item=item, previous_item_id=before)
            before = str(item["id"])
        await caller.until("conversation.item.done", len(history))
        assert ids(caller) == ["a", "b", "c", "d", "e"]
        assert [event["previous_item_id"] for event in caller.of("conversation.item.added")] == [None, *"abcd"]
        await caller.say()
        assert not caller.of("error")
    assert [role for role, _ in prompts(play)[-1]] == ["system", "user", "assistant", "tool", "assistant", "user"]


@virtual
async def test_nothing_is_answered_after_a_result_of_no_call() -> None:
    """A response.create right after the refused result of an unknown call is an error; the next one is answered."""
    async with Play().call() as caller:
        result = {"type": "function_call_output", "call_id": "nobody", "output": "{}"}
        assert (await refused(caller, type="conversation.item.create", item=result))["code"] == "invalid_call_id"
        assert (await refused(caller, type="response.create"))["code"] == "invalid_call_id"
        await caller.ask(type="response.create")
        await caller.until("response.done")


@virtual
async def test_the_voice_of_one_response() -> None:
    """A response.create may name a voice until audio was sent; then another voice is refused."""
    async with Play().call() as caller:
        await caller.ask(type="response.create", response={"audio": {"output": {"voice": "marin"}}})
        done = await caller.until("response.done")
        assert done["response"]["audio"]["output"]["voice"] == "marin"
        error = await refused(caller, type="response.create", response={"audio": {"output": {"voice": "ash"}}})
        assert error["param"] == "response.audio.output.voice"


@virtual
async def test_only_spoken_assistant_items_can_be_truncated() -> None:
    """Truncating a user's item, a text item, an item that the client made or an unknown id is an error."""
    async with Play().call() as caller:
        await caller.ask(type="conversation.item.create", item=message("a", id="a"))
        await caller.ask(type="conversation.item.create", item=message("b", "assistant", id="b"))
        spoken = {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "Hi."}]}
        await caller.ask(type="conversation.item.create", item=spoken | {"id": "d"})
        for item_id in ("a", "b", "c", "d"):
            error = await refused(
                caller, type="conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=0
            )
            assert error["param"] == "item_id"
