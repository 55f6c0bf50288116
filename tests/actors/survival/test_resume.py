"""Tests of resuming: a host dies at any moment of a call, and another host goes on with the conversation.

A dead host is one whose journal is copied at a moment: whatever it does later, the copy does not get it. All hosts run
in virtual time with fake stages.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.host import Host
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.survival.journal_table import JournalTable
from rejoinder.core.survival.resumption import HeardReport
from tests.actors.fakes import ANSWER, ScriptedStt, WordyLlm
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

SETTLED_S = 0.1
"""Seconds after which the journal has every change."""


@dataclass
class Death:
    """A call whose host has died.

    Attributes:
        table: The journal as the host left it.
        token: The client's resume token.
        before: The caller with the events up to the death.
    """

    table: JournalTable
    token: str
    before: Caller
    settings: Settings = field(default_factory=Settings)

    def played(self, item_id: str, seconds: float) -> HeardReport:
        """Return the report of a client that has played `seconds` of an item."""
        return HeardReport(item_id, round(seconds * 1000))

    @asynccontextmanager
    async def resumed(self, report: HeardReport | None = None, play: Play | None = None) -> AsyncIterator[Caller]:
        """Go on with the call on another host, and yield the caller with the events from there on."""
        play = play or Play(settings=self.settings)
        play.table = self.table
        async with play.open() as host:
            caller = Caller()
            async with going_on(host, self.token, caller, report):
                yield caller


@asynccontextmanager
async def going_on(host: Host, text: str, caller: Caller, report: HeardReport | None = None) -> AsyncIterator[None]:
    """Resume a call on a host, as the transport does, and give its events to `caller`."""
    assert host.keeper
    token = await host.keeper.token(text)
    assert token
    origin = await host.keeper.claim(token, report)
    assert origin
    assert origin.snapshot
    async with host.converse(origin.snapshot.key, caller.take, origin.snapshot.config, origin=origin) as session:
        caller.session = session
        yield


@asynccontextmanager
async def dying(play: Play) -> AsyncIterator[tuple[Caller, Death]]:
    """Yield the caller of a call and its death, which holds the journal's copy from the end of the block on."""
    play.table = JournalTable(1_000_000, 120)
    async with play.call() as caller:
        token = str(caller.of("session.created")[0]["rejoinder"]["resume_token"])
        death = Death(JournalTable(1, 1), token, caller, play.settings)
        yield caller, death
        death.table = copy.deepcopy(play.table)


def texts(caller: Caller) -> list[tuple[str, str | None]]:
    """Return role and text of the conversation's items."""
    return [(item.role, item.text) for item in caller.session.conversation]


def resumed_event(caller: Caller) -> dict[str, Any]:
    """Return the only rejoinder.session.resumed event."""
    (event,) = caller.of("rejoinder.session.resumed")
    return event


@virtual
async def test_an_idle_call_goes_on_with_its_history() -> None:
    """After two answered turns, another host has the same session, settings and items, and says nothing by itself."""
    async with dying(Play(stt=ScriptedStt())) as (caller, death):
        await caller.ask(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
        await caller.say()
        await caller.say()
        await asyncio.sleep(SETTLED_S)
        history = texts(caller)
    async with death.resumed() as after:
        await after.hush(3.0)
        created = after.of("session.created")[0]
        assert created["session"]["id"] == caller.of("session.created")[0]["session"]["id"]
        assert created["session"]["instructions"] == "Be brief."
        assert created["rejoinder"]["resume_token"]
        assert after.types[:2] == ["session.created", "rejoinder.session.resumed"]
        event = resumed_event(after)
        assert (event["items"], event["response"]) == (4, None)
        assert event["last_item_id"] == list(after.session.conversation)[-1].id
        assert texts(after) == history == [("user", "What time is it?"), ("assistant", ANSWER)] * 2
        assert not after.of("response.created")


@virtual
async def test_a_resumed_call_takes_turns_and_can_be_resumed_again() -> None:
    """The second host answers a new turn with ids that no earlier host has used. A third host has all three turns."""
    async with dying(Play()) as (caller, death):
        await caller.say()
        await asyncio.sleep(SETTLED_S)
    async with death.resumed() as second:
        await second.say()
        await asyncio.sleep(SETTLED_S)
        ids = [item.id for item in second.session.conversation]
        assert len(set(ids)) == 4
        again = Death(copy.deepcopy(death.table), second.of("session.created")[0]["rejoinder"]["resume_token"], second)
    async with again.resumed() as third:
        assert [item.id for item in third.session.conversation] == ids
        await third.say()
        assert len(third.session.conversation) == 6


@virtual
async def test_a_question_whose_words_are_not_known_is_heard_again() -> None:
    """If the host dies before the transcript, the turn is no item: the client sends its audio again.

    The audio to repeat is all audio, because no item before came from audio.
    """
    async with dying(Play(stt=ScriptedStt(delay_s=30.0))) as (caller, death):
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await asyncio.sleep(SETTLED_S)
        assert texts(caller) == [("user", None)]
    async with death.resumed() as after:
        assert resumed_event(after)["audio_after_item_id"] is None
        assert resumed_event(after)["response"] is None
        await after.say()
        assert texts(after) == [("user", "What time is it?"), ("assistant", ANSWER)]


@pytest.mark.parametrize("open_first", [False, True], ids=["before the response", "after response.created"])
def test_a_question_without_an_answer_is_answered(open_first: bool) -> None:
    """If the host dies while the language model works, the next host answers the question, once."""

    @virtual
    async def scenario() -> None:
        async with dying(Play(llm=WordyLlm(ttft_s={"a": 60.0}))) as (caller, death):
            if open_first:
                await caller.ask(
                    type="conversation.item.create",
                    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi?"}]},
                )
                await caller.ask(type="response.create")
                await caller.until("response.created")
            else:
                await caller.speak(1.0)
                await caller.listen("input_audio_buffer.committed")
                await caller.hush(1.0)
            await asyncio.sleep(SETTLED_S)
        async with death.resumed() as after:
            assert resumed_event(after)["response"] == {"kind": "answered", "continues_item_id": None}
            await after.listen("response.done")
            await after.hush(5.0)
            assert texts(after) == [("user", "Hi?" if open_first else "What time is it?"), ("assistant", ANSWER)]
            assert len(after.of("response.done")) == 1

    scenario()


@pytest.mark.parametrize("played_s", [0.0, 0.4, 1.9, 3.0, 5.0])
def test_an_answer_goes_on_behind_the_last_word_heard(played_s: float) -> None:
    """The words before and after the resume are the whole answer, each word once, wherever the audio broke off.

    The client has played `played_s` seconds of the answer's audio when the host dies. The language model gets no word
    that was spoken as a message of the conversation, only as the beginning of its answer.
    """

    @virtual
    async def scenario() -> None:
        async with dying(Play()) as (caller, death):
            await caller.speak(1.0)
            await caller.listen("response.output_audio_transcript.delta")
            await caller.hush(max(played_s, SETTLED_S))
            item_id = caller.of("response.output_item.added")[0]["item"]["id"]
        llm = WordyLlm()
        async with death.resumed(death.played(item_id, played_s), Play(llm=llm)) as after:
            await after.listen("response.done")
            said = [text for role, text in texts(after) if role == "assistant"]
            assert " ".join(text or "" for text in said) == ANSWER
            kind = {"kind": "continued", "continues_item_id": item_id} if played_s > 0.2 else None
            assert resumed_event(after)["response"] == (kind or {"kind": "answered", "continues_item_id": None})
            assert after.transcript.strip() == said[-1]
            for _, request in llm.requests:
                assert [message.role for message in request.messages] == ["system", "user"]

    scenario()


@virtual
async def test_without_a_report_the_journal_knows_what_was_heard() -> None:
    """A client that does not say what it has played hears the answer from where the last snapshot saw it."""
    async with dying(Play()) as (caller, death):
        await caller.speak(1.0)
        await caller.listen("response.output_audio_transcript.delta")
        await caller.hush(2.5)
    async with death.resumed() as after:
        await after.listen("response.done")
        first, second = (text or "" for role, text in texts(after) if role == "assistant")
        assert f"{first} {second}" == ANSWER
        assert first


@virtual
async def test_an_answer_that_was_heard_is_not_repeated() -> None:
    """If the client has played the whole answer, the next host says nothing, whether the reply had ended or not."""
    async with dying(Play()) as (caller, death):
        done = await caller.say()
        await asyncio.sleep(SETTLED_S)
        item_id = done["response"]["output"][0]["id"]
        length_s = len(caller.audio) / 48_000
    async with death.resumed(death.played(item_id, length_s)) as after:
        await after.hush(5.0)
        assert resumed_event(after)["response"] is None
        assert not after.of("response.created")
        assert texts(after)[-1] == ("assistant", ANSWER)


@virtual
async def test_a_client_that_lost_its_connection_hears_the_rest() -> None:
    """If the host has sent the whole answer, but the client has played a part of it, the rest is said again.

    The words are known, so no language model is needed.
    """
    async with dying(Play()) as (caller, death):
        done = await caller.say()
        await asyncio.sleep(SETTLED_S)
        item_id = done["response"]["output"][0]["id"]
    llm = WordyLlm()
    async with death.resumed(death.played(item_id, 2.0), Play(llm=llm)) as after:
        await after.listen("response.done")
        first, second = (text or "" for role, text in texts(after) if role == "assistant")
        assert f"{first} {second}" == ANSWER
        assert not llm.requests


@virtual
async def test_an_answer_that_breaks_off_twice_is_finished() -> None:
    """Three hosts say one answer, and the language model always gets all its words as the beginning."""
    async with dying(Play()) as (caller, death):
        await caller.speak(1.0)
        await caller.listen("response.output_audio_transcript.delta")
        await caller.hush(1.5)
        first = caller.of("response.output_item.added")[0]["item"]["id"]
    async with death.resumed(death.played(first, 1.5)) as second:
        await second.listen("response.output_audio_transcript.delta")
        await second.hush(1.5)
        item_id = second.of("response.output_item.added")[0]["item"]["id"]
        token = second.of("session.created")[0]["rejoinder"]["resume_token"]
        again = Death(copy.deepcopy(death.table), token, second)
    async with again.resumed(again.played(item_id, 1.5)) as third:
        assert resumed_event(third)["response"] == {"kind": "continued", "continues_item_id": item_id}
        await third.listen("response.done")
        said = [text or "" for role, text in texts(third) if role == "assistant"]
        assert len(said) == 3
        assert " ".join(said) == ANSWER


@virtual
async def test_an_interrupted_answer_does_not_go_on() -> None:
    """If the caller has interrupted the answer, the next host does not finish it."""
    async with dying(Play()) as (caller, death):
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        await caller.hush(1.0)
        await caller.ask(type="response.cancel")
        await caller.until("response.done")
        await asyncio.sleep(SETTLED_S)
        heard = texts(caller)
    async with death.resumed() as after:
        await after.hush(3.0)
        assert not after.of("response.created")
        assert texts(after) == heard


@virtual
async def test_the_newer_of_two_connections_wins() -> None:
    """If a second connection resumes the session on the same host, the first one is told, and both see one session."""
    play = Play(table=JournalTable(1_000_000, 120))
    async with play.open() as host:
        first, second = Caller(), Caller()
        async with host.converse("one", first.take, "rejoinder") as session:
            first.session = session
            token = first.of("session.created")[0]["rejoinder"]["resume_token"]
            assert session.record
            async with going_on(host, token, second):
                assert session.record.taken.is_set()
                await second.say()
        await asyncio.sleep(SETTLED_S)
        assert play.table
        assert len(play.table) == 1


@virtual
async def test_a_host_learns_from_the_journal_that_a_session_was_resumed_elsewhere() -> None:
    """If another host claims the session, the first host's next snapshot is answered so, and its connection ends."""
    play = Play(table=JournalTable(1_000_000, 120))
    async with play.open() as first_host, play.open() as second_host:
        first, second = Caller(), Caller()
        async with first_host.converse("one", first.take, "rejoinder") as session:
            first.session = session
            await asyncio.sleep(SETTLED_S)
            token = first.of("session.created")[0]["rejoinder"]["resume_token"]
            async with going_on(second_host, token, second):
                await first.ask(type="session.update", session={"type": "realtime", "instructions": "x"})
                assert session.record
                async with asyncio.timeout(1.0):
                    await session.record.taken.wait()
                assert play.metrics.counts["survival superseded"] == 1


@virtual
async def test_a_session_that_the_client_has_ended_is_forgotten() -> None:
    """A connection that broke leaves the session in the journal. One that the client has closed does not."""
    for ended, left in ((False, 1), (True, 0)):
        play = Play(table=JournalTable(1_000_000, 120))
        async with play.open() as host:
            async with host.converse("one", Caller().take, "rejoinder") as session:
                await asyncio.sleep(SETTLED_S)
                assert session.record
                session.record.ended = ended
            await asyncio.sleep(SETTLED_S)
            assert play.table is not None
            assert len(play.table) == left


@virtual
async def test_the_greeting_is_not_repeated() -> None:
    """A session that was greeted is not greeted by the next host."""
    settings = parse_settings({"conversation": {"greeting": "Hello there."}})
    async with dying(Play(settings=settings)) as (caller, death):
        await caller.listen("response.done")
        await asyncio.sleep(SETTLED_S)
    async with death.resumed() as after:
        await after.hush(2.0)
        assert not after.of("response.created")
        assert texts(after) == [("assistant", "Hello there.")]


@virtual
async def test_a_client_is_asked_to_move_between_two_turns() -> None:
    """A session that is asked to move during a reply sends the request after the reply, once."""
    async with Play(table=JournalTable(1_000_000, 120)).call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.output_audio.delta")
        caller.session.ask_to_move("draining")
        await caller.listen("response.done")
        assert not caller.of("rejoinder.session.move")
        await caller.hush(1.0)
        await caller.say()
        assert [event["reason"] for event in caller.of("rejoinder.session.move")] == ["draining"]
        assert caller.at("rejoinder.session.move") > caller.at("response.done")
