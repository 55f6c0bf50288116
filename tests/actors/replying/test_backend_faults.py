"""Tests of faults of the language model's backend: what the caller hears, and when, and how the response ends.

In each test, the next turn is answered normally.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from actors.stages.ports import ANYWHERE, LlmRequest, LlmStream, LlmUsage, TokenDelta
from actors.stages.replica_health import PROBE
from rejoinder.core.errors import BackendError, BadResponse, CallerError, ConfigError, Overloaded, RejoinderError
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.settings.settings import ConversationSettings, LlmSettings, Settings
from tests.actors.fakes import ANSWER, WordyLlm
from tests.actors.stage_play import ENDING_PCM, Caller, Play
from tests.actors.virtual_time import virtual

WORDS = ConversationSettings()
FILLER = HeldClip("One moment.", ENDING_PCM[: 24_000 * 2 // 2])
Event = TokenDelta | Exception | float
STOP = TokenDelta("", 0, "stop", LlmUsage(5, 0))


@dataclass
class _Events:
    events: tuple[Event, ...]
    replica: str

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            if isinstance(event, TokenDelta):
                yield event
            else:
                await asyncio.sleep(event)


@dataclass
class EventLlm(WordyLlm):
    """Fake language model that answers each request with the next of `scripts`: pauses in seconds, deltas or an error.

    After the last script, requests are answered with `answer`, or with the last script again if `forever` is set.
    `asked_at` has the event loop's time of each request.
    """

    scripts: list[tuple[Event, ...]] = field(default_factory=list)
    forever: bool = False
    asked_at: list[float] = field(default_factory=list)

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        if request.prefill or request.messages == PROBE or not self.scripts:
            async with super().open(request, avoid=avoid, strict=strict, only=only) as stream:
                yield stream
            return
        self.asked_at.append(asyncio.get_running_loop().time())
        choice = [name for name in self.ttft_s if name not in avoid] or list(self.ttft_s)
        self.requests.append((choice[0], request))
        script = self.scripts[0] if self.forever and len(self.scripts) == 1 else self.scripts.pop(0)
        await asyncio.sleep(0.02)
        yield _Events(script, choice[0])


def said(text: str, *, pause_s: float = 0.02) -> tuple[Event, ...]:
    """Return the events of a stream that sends `text` word by word, with a pause before each, and no finish event."""
    return tuple(event for word in text.split(" ") for event in (pause_s, TokenDelta(f"{word} ")))


def play_of(*scripts: tuple[Event, ...], forever: bool = False, settings: Settings | None = None) -> Play:
    """Return a scenario with a prepared filler and an `EventLlm` with these scripts."""
    return Play(settings or Settings(), llm=EventLlm(scripts=list(scripts), forever=forever), fillers=(FILLER,))


def events_llm(play: Play) -> EventLlm:
    """Return the scenario's language model."""
    assert isinstance(play.llm, EventLlm)
    return play.llm


def longest_silence_s(caller: Caller, spoke: float, until: float) -> float:
    """Return the longest time in seconds without sound for the caller between `spoke` and `until`.

    Both are times of the event loop, `spoke` the end of the question. An audio delta is heard from its arrival, or from
    the end of the delta before it, for its length.
    """
    quiet_s, heard_until = 0.0, spoke
    for at, event in caller.events:
        if event["type"] == "response.output_audio.delta":
            quiet_s = max(quiet_s, at - heard_until)
            heard_until = max(heard_until, at) + len(event["delta"]) / 48_000
    return max(quiet_s, until - heard_until)


async def answers_next(play: Play, caller: Caller) -> None:
    """Check that the next turn of the session is answered with ANSWER."""
    events_llm(play).scripts.clear()
    await caller.hush(4)
    before = caller.transcript
    done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert caller.transcript == before + ANSWER


# -- no answer ---------------------------------------------------------------------------------------------------------

SILENT = {
    "nothing": ((STOP,), "failed", "empty_answer", WORDS.no_answer),
    "white space": ((TokenDelta(" \n "), STOP), "failed", "empty_answer", WORDS.no_answer),
    "emoji": ((TokenDelta("\U0001f600"), STOP), "failed", "empty_answer", WORDS.no_answer),
    "filtered": ((TokenDelta("", 0, "content_filter"),), "incomplete", "content_filter", WORDS.declined),
    "tool call": ((TokenDelta("", 0, "tool_calls"),), "failed", "unhandled_tool_call", WORDS.no_answer),
    "thought only": ((TokenDelta("", 0, "length"),), "incomplete", "max_output_tokens", WORDS.no_answer),
}


@pytest.mark.parametrize("name", SILENT)
@virtual
async def test_an_answer_that_nobody_can_hear_is_said_to_be_none(name: str) -> None:
    """If an answer has nothing that can be spoken, the caller hears a sentence within 1.5 s after the question.

    The response's status names the reason, and the conversation keeps no text of the answer.
    """
    script, status, reason, sentence = SILENT[name]
    play = play_of(script)
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        response = (await caller.listen("response.done"))["response"]
        assert caller.at("response.output_audio.delta") - spoke < 1.5
        details = response["status_details"]
        assert (response["status"], details.get("reason") or details["error"]["code"]) == (status, reason)
        assert caller.transcript == sentence
        assert caller.audio == ENDING_PCM
        assert response["output"][0]["content"] == []
        assert play.metrics.counts["backend llm_empty"] == 1
        await answers_next(play, caller)
    assert [message.role for message in play.llm.requests[-1][1].messages] == ["system", "user", "user"]


@virtual
async def test_a_text_reply_without_an_answer_has_an_honest_status() -> None:
    """In a text reply without an answer, the status has the code "empty_answer" and the item has no text.

    A sentence such as a voice reply has could be mistaken for data.
    """
    play = play_of((STOP,))
    async with play.call() as caller:
        await caller.ask(type="session.update", session={"type": "realtime", "output_modalities": ["text"]})
        done = await caller.say()
    assert done["response"]["status_details"]["error"]["code"] == "empty_answer"
    assert done["response"]["output"][0]["content"] in ([], [{"type": "output_text", "text": ""}])


@virtual
async def test_a_tool_call_after_words_is_no_complete_answer() -> None:
    """If the model announces a tool call in words and then calls a tool, the caller also hears that there is no answer.

    Otherwise the caller would wait for what the words promise.
    """
    play = play_of((*said("Let me look that up."), TokenDelta("", 0, "tool_calls")))
    async with play.call() as caller:
        done = await caller.say()
    assert caller.transcript == f"Let me look that up. {WORDS.no_answer}"
    assert done["response"]["status_details"]["error"]["code"] == "unhandled_tool_call"


# -- faults of the request and the configuration -----------------------------------------------------------------------

PERMANENT: dict[str, tuple[RejoinderError, str]] = {
    "request": (CallerError("refused.", code="invalid_request"), "invalid_request"),
    "too long": (CallerError("too long.", code="context_length_exceeded"), "context_length_exceeded"),
    "key": (ConfigError("bad key.", field="args.llm.api_key_env"), "llm_misconfigured"),
}


@pytest.mark.parametrize("name", PERMANENT)
@virtual
async def test_a_fault_that_no_retry_repairs_is_known_at_once(name: str) -> None:
    """A fault of the request or the configuration is not retried. The caller hears one sentence within 1.5 s.

    The response's status has the code of the fault.
    """
    fault, code = PERMANENT[name]
    play = play_of((fault,), forever=True)
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        done = await caller.listen("response.done")
        assert caller.at("response.output_audio.delta") - spoke < 1.5
        assert caller.at("response.done") - spoke < 3
        assert done["response"]["status_details"]["error"]["code"] == code
        assert caller.transcript == WORDS.failure
        assert len(play.llm.requests) == 1
        assert "bad key" not in str(done)
        await answers_next(play, caller)


@virtual
async def test_a_wrong_configuration_is_known_until_an_answer_comes() -> None:
    """The host keeps the newest configuration fault for its health route until a request is answered completely."""
    fault = PERMANENT["key"][0]
    play = play_of((fault,))
    async with play.call() as caller:
        await caller.say()
        backends = caller.session.context.services.hedger.backends
        assert backends.configuration_fault == fault
        await answers_next(play, caller)
        assert backends.configuration_fault is None


@virtual
async def test_the_backup_answers_for_a_misconfigured_primary() -> None:
    """If the primary backend refuses the key, the backup gets the request at once, and the caller hears its answer."""
    play = play_of((PERMANENT["key"][0],), forever=True)
    play.backup = WordyLlm()
    async with play.call() as caller:
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert caller.transcript == ANSWER


@virtual
async def test_a_response_of_another_kind_of_server_is_tried_three_times() -> None:
    """If the server's response is not that of a language model (an HTML page), the request is sent three times in all.

    The reply fails within 3 s.
    """
    play = play_of((BadResponse("html.", stage="llm"),), forever=True)
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        done = await caller.listen("response.done")
        assert caller.at("response.done") - spoke < 3
        assert done["response"]["status_details"]["error"]["code"] == "llm_unavailable"
        assert caller.transcript == WORDS.failure
        assert len(play.llm.requests) == 3
        await answers_next(play, caller)


# -- transient faults --------------------------------------------------------------------------------------------------


@virtual
async def test_a_dead_backend_gets_few_retries_and_the_caller_an_honest_end() -> None:
    """While a backend fails, a reply sends 8 to 20 requests in 20 s, with growing pauses between them.

    The caller hears one apology, silence of at most 5 s, and at the end a sentence: the agent cannot answer.
    """
    play = play_of((BackendError("refused.", stage="llm", replica="a"),), forever=True)
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        done = await caller.listen("response.done")
        ended = caller.at("response.done")
        assert done["response"]["status"] == "failed"
        assert 20 <= ended - spoke < 25
        assert caller.transcript.count(WORDS.apology) == 1
        assert caller.transcript.startswith(WORDS.apology)
        assert caller.transcript.endswith(WORDS.failure)
        assert longest_silence_s(caller, spoke, ended) <= 5
        assert 8 <= len(events_llm(play).asked_at) <= 20
        assert max(later - earlier for earlier, later in pairwise(events_llm(play).asked_at)) >= 1
        await answers_next(play, caller)


@virtual
async def test_a_second_turn_has_no_new_burst_of_retries() -> None:
    """A new turn does not refill the caller's budget of retries.

    While the backend fails, the first turn sends at least 6 requests, and the next at most 4.
    """
    settings = Settings(conversation=ConversationSettings(give_up_after_s=2))
    play = play_of((BackendError("refused.", stage="llm", replica="a"),), forever=True, settings=settings)
    async with play.call() as caller:
        await caller.say()
        first = len(events_llm(play).asked_at)
        await caller.say()
        second = len(events_llm(play).asked_at) - first
    assert first >= 6
    assert second <= 4


@virtual
async def test_a_server_that_asks_to_wait_gets_no_request_meanwhile() -> None:
    """After a response with Retry-After: 3, no request is sent for 3 s. Then the caller hears the answer.

    An apology is audible within 1.5 s.
    """
    full = Overloaded("429.", retry_after_s=3, resource="llm", shared=True)
    play = play_of((full,))
    async with play.call() as caller:
        await caller.speak(1.0)
        done = await caller.listen("response.done")
        assert done["response"]["status"] == "completed"
        assert caller.transcript == f"{WORDS.apology} {ANSWER}"
        assert len(play.llm.requests) == 2
        first_audio = [at for at, event in caller.events if event["type"] == "response.output_audio.delta"]
        assert first_audio[0] - events_llm(play).asked_at[0] < 1.5
        answered_at = caller.at("response.output_audio_transcript.delta", 2)
        assert answered_at - events_llm(play).asked_at[0] >= 3
        await answers_next(play, caller)


@virtual
async def test_a_wait_that_is_too_long_is_told_to_the_caller_at_once() -> None:
    """After Retry-After: 25, which exceeds the longest wait for an answer, the reply fails within 3 s.

    During these 25 s the host sends no request to the backend, so the next turn fails too.
    """
    play = play_of((Overloaded("429.", retry_after_s=25, resource="llm", shared=True),))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        await caller.listen("response.done")
        assert caller.at("response.done") - spoke < 3
        assert caller.transcript == WORDS.failure
        done = await caller.say()
        assert done["response"]["status"] == "failed"
        assert len(play.llm.requests) == 1
        await caller.hush(25)
        await answers_next(play, caller)


# -- slow and broken answers -------------------------------------------------------------------------------------------


@virtual
async def test_a_model_that_thinks_is_not_interrupted() -> None:
    """If the engine reports for 20 s that the model is thinking, one request is sent, and the answer is heard.

    The caller hears a filler at least every 5 s until then.
    """
    thinking: tuple[Event, ...] = (0.4, TokenDelta("", 0)) * 50
    play = play_of((*thinking, *said(ANSWER), STOP), settings=Settings(llm=REMOTE))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        await caller.listen("response.done")
        assert len(play.llm.requests) == 1
        assert caller.transcript.endswith(ANSWER)
        assert longest_silence_s(caller, spoke, spoke) <= 5
        await answers_next(play, caller)


REMOTE = LlmSettings(engine="openai_api", base_url="http://127.0.0.1:1/v1")


@virtual
async def test_one_token_a_second_is_spoken_as_it_comes() -> None:
    """An answer of one token a second is spoken in short segments, complete and once, without silence of over 5 s."""
    play = play_of((*said(ANSWER, pause_s=1.0), STOP), settings=Settings(llm=REMOTE))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        done = await caller.listen("response.done")
        assert done["response"]["status"] == "completed"
        assert len(play.llm.requests) == 1
        assert done["response"]["output"][0]["content"][0]["transcript"] == ANSWER
        assert longest_silence_s(caller, spoke, spoke) <= 5
        assert len(play.tts.texts) > 3
        assert " ".join(play.tts.texts) == ANSWER


@virtual
async def test_a_stall_in_the_answer_is_not_silent() -> None:
    """If the server stalls within an answer, the caller hears a filler within 5 s, then the rest of the answer once."""
    first, rest = "It is noon. The sun", "stands high, and lunch is ready for everyone who wants some."
    play = play_of((*said(first), 60.0), settings=Settings(llm=REMOTE))
    async with play.call() as caller:
        await caller.speak(1.0)
        spoke = asyncio.get_running_loop().time()
        done = await caller.listen("response.done")
        assert done["response"]["status"] == "completed"
        assert done["response"]["output"][0]["content"][0]["transcript"] == f"{first} {rest}"
        assert longest_silence_s(caller, spoke, spoke) <= 5
        await answers_next(play, caller)


@virtual
async def test_an_answer_that_begins_anew_starts_at_a_sentence() -> None:
    """If the second attempt uses other words, the caller hears `WORDS.bridge` ("Let me start that again.") before it.

    Words of the first attempt that were not spoken yet are dropped. The conversation has the spoken words.
    """
    broken = (*said("On Monday we always open at"), 1.0, BackendError("cut.", stage="llm", replica="a"))
    again = (0.02, TokenDelta("Our shop opens at nine.", 5, continues=0), STOP)
    play = play_of(broken, again)
    async with play.call() as caller:
        done = await caller.say()
        assert caller.transcript == f"On Monday we always open {WORDS.bridge} Our shop opens at nine."
        assert done["response"]["output"][0]["content"][0]["transcript"] == caller.transcript
        await answers_next(play, caller)


@virtual
async def test_an_unspoken_beginning_is_replaced_without_a_word() -> None:
    """If nothing of the first attempt was spoken, the caller hears only the second attempt.

    The sentence `WORDS.bridge`, which announces a new beginning, is not spoken.
    """
    broken = (TokenDelta("On Monday"), 0.1, BackendError("cut.", stage="llm", replica="a"))
    play = play_of(broken, (TokenDelta("Our shop opens at nine.", 5, continues=0), STOP))
    async with play.call() as caller:
        await caller.say()
    assert caller.transcript == "Our shop opens at nine."


@virtual
async def test_a_third_attempt_continues_the_second() -> None:
    """If the second attempt began anew and broke off too, the third attempt gets its words as the prefix."""
    cut = BackendError("cut.", stage="llm", replica="a")
    broken = (*said("On Monday we always open at"), cut)
    again = (TokenDelta("Our shop opens ", 3, continues=0), cut)
    play = play_of(broken, again, (TokenDelta("at nine."), STOP))
    async with play.call() as caller:
        await caller.say()
    assert play.llm.requests[-1][1].prefix == "Our shop opens "
    assert caller.transcript.endswith("Our shop opens at nine.")
