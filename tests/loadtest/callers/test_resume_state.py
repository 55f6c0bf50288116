"""Tests of what a client sends again when its conversation continues: all speech the server lacks, and little else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.resume_state import (
    GIVE_UP_S,
    KEPT_FRAMES,
    LEAD_IN_FRAMES,
    QUIET_FRAMES,
    Position,
    ResumeState,
    SessionGone,
    pause_s,
    reconnect,
)
from tests.actors.virtual_time import virtual

FRAME_MS = 20


def resumption(frames: int = 0) -> ResumeState:
    """Return the state of a caller whose session has a token and who has sent this many frames."""
    caller = ResumeState()
    caller.take({"type": "session.created", "rejoinder": {"resume_token": "t1", "resume_expires_at": 9}})
    return say(caller, frames)


def say(caller: ResumeState, frames: int) -> ResumeState:
    """Send frames, each of which is its own number."""
    first = caller._count
    for number in range(first, first + frames):
        caller.sent(str(number).encode())
    return caller


def hear(caller: ResumeState, kind: str, **fields: Any) -> ResumeState:
    caller.take({"type": f"input_audio_buffer.{kind}", **fields})
    return caller


def utterance(caller: ResumeState, item: str, start: int, end: int) -> ResumeState:
    """Let the server detect and commit an utterance from frame `start` to frame `end`."""
    hear(caller, "speech_started", item_id=item, audio_start_ms=start * FRAME_MS)
    hear(caller, "speech_stopped", item_id=item, audio_end_ms=end * FRAME_MS)
    return hear(caller, "committed", item_id=item)


def resent(caller: ResumeState, after: str | None = None) -> list[int]:
    """Return the numbers of the frames that the caller sends again."""
    return [int(message) for message in caller.resend({"audio_after_item_id": after})]


def test_a_silent_caller_repeats_one_second() -> None:
    """Nothing was detected since the last utterance: the newest second may hold an onset, older audio is silence."""
    caller = utterance(resumption(500), "a", 100, 200)
    assert resent(caller, "a") == list(range(500 - QUIET_FRAMES, 500))


def test_a_caller_who_speaks_repeats_the_utterance() -> None:
    """Speech in progress is sent again from before its detected start, with what was said while disconnected."""
    caller = hear(resumption(500), "speech_started", item_id="b", audio_start_ms=300 * FRAME_MS)
    say(caller, 80)
    assert resent(caller) == list(range(300 - LEAD_IN_FRAMES, 580))


def test_an_utterance_that_the_journal_lacks_is_repeated() -> None:
    """The host died after it had committed an utterance, and before the journal had it."""
    caller = utterance(utterance(resumption(900), "a", 100, 200), "b", 600, 700)
    assert resent(caller, "a") == list(range(600 - LEAD_IN_FRAMES, 900))


def test_audio_of_a_known_utterance_is_never_repeated() -> None:
    """The newest second does not reach back into an utterance that the conversation has."""
    caller = utterance(resumption(210), "a", 100, 200)
    assert resent(caller, "a") == list(range(200, 210))


def test_cleared_audio_is_not_repeated() -> None:
    """Audio that the server has dropped, at the client's wish or as noise, does not come back."""
    caller = hear(hear(resumption(400), "speech_started", audio_start_ms=300 * FRAME_MS), "cleared")
    say(caller, 10)
    assert resent(caller) == list(range(400, 410))


def test_positions_count_from_the_start_of_the_new_connection() -> None:
    """After a resume, the server's positions start at the first frame that was sent again; `take` changes them."""
    caller = resumption(500)
    first = resent(caller)[0]
    say(caller, 200)
    event = {"type": "input_audio_buffer.speech_started", "audio_start_ms": 100 * FRAME_MS}
    caller.take(event)
    assert event["audio_start_ms"] == (first + 100) * FRAME_MS
    assert resent(caller)[0] == first + 100 - LEAD_IN_FRAMES


def test_at_most_a_minute_is_repeated() -> None:
    """A caller who has spoken for two minutes repeats the newest one."""
    caller = hear(resumption(100), "speech_started", audio_start_ms=0)
    say(caller, 2 * KEPT_FRAMES)
    assert resent(caller) == list(range(100 + KEPT_FRAMES, 100 + 2 * KEPT_FRAMES))


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), max_size=12), st.integers(0, 200), st.data())
def test_no_word_is_lost_or_doubled(turns: list[tuple[int, int]], tail: int, data: st.DataObject) -> None:
    """Whatever the journal knows, all later detected speech is sent again, and no frame of what it knows."""
    caller, spans = resumption(), {}
    for number, (pause, speech) in enumerate(turns):
        say(caller, pause)
        start = caller._count
        say(caller, speech)
        spans[f"i{number}"] = (start, caller._count)
        utterance(caller, f"i{number}", start, caller._count)
    say(caller, tail)
    newest = list(spans)[-8:]
    known = data.draw(st.sampled_from(newest)) if newest else None
    frames = resent(caller, known)
    assert frames == list(range(caller._count - len(frames), caller._count))
    for item in newest[newest.index(known) + 1 :] if known else []:
        assert set(range(*spans[item])) <= set(frames)
    if known:
        assert not frames or frames[0] >= spans[known][1]


def test_the_query_names_the_newest_token_and_the_heard_audio() -> None:
    """The token of the newest `session.created` is used. `heard` is left out without a reply."""
    caller = resumption()
    caller.take({"type": "session.created", "rejoinder": {"resume_token": "t2"}})
    assert caller.query(None) == {"resume_token": "t2"}
    assert caller.query(Position("item_1", 640)) == {"resume_token": "t2", "heard": "item_1:640"}


def test_a_server_without_tokens_is_not_resumed() -> None:
    """Other servers send no token."""
    caller = ResumeState()
    caller.take({"type": "session.created", "session": {}})
    assert caller.token is None


@pytest.mark.parametrize(("attempt", "most"), [(0, 0.05), (1, 0.1), (2, 0.2), (5, 1.6), (6, 2.0), (60, 2.0)])
def test_pauses_grow_to_two_seconds(attempt: int, most: float) -> None:
    """The pause is random between 0 and a bound that doubles from 50 ms to 2 s."""
    assert pause_s(attempt, 1.0) == pytest.approx(most)
    assert pause_s(attempt, 0.0) == 0.0


class Servers:
    """Servers of which some take the session again. It notes every attempt, with its time in seconds."""

    def __init__(self, answers: dict[str, list[Exception | str]]) -> None:
        self._answers = answers
        self.attempts: list[tuple[str, float]] = []

    async def connect(self, url: str) -> str:
        self.attempts.append((url, asyncio.get_running_loop().time()))
        answer = self._answers[url].pop(0) if self._answers[url] else ConnectionError("nobody listens")
        if isinstance(answer, Exception):
            raise answer
        return answer


@virtual
async def test_the_attempts_take_the_servers_in_turn() -> None:
    servers = Servers({"a": [ConnectionError(), "again"], "b": [TimeoutError()]})
    assert await reconnect(servers.connect, ("a", "b"), over=lambda: False) == "again"
    assert [url for url, _ in servers.attempts] == ["a", "b", "a"]


@virtual
async def test_a_session_that_is_gone_is_not_asked_for_again() -> None:
    servers = Servers({"a": [SessionGone()], "b": ["another conversation"]})
    assert await reconnect(servers.connect, ("a", "b"), over=lambda: False) is None
    assert len(servers.attempts) == 1


@virtual
async def test_the_attempts_end_after_the_time_limit() -> None:
    servers = Servers({"a": []})
    began = asyncio.get_running_loop().time()
    assert await reconnect(servers.connect, ("a",), over=lambda: False) is None
    assert GIVE_UP_S - 4 < servers.attempts[-1][1] - began <= GIVE_UP_S


@virtual
async def test_nobody_reconnects_after_hanging_up() -> None:
    servers = Servers({"a": ["again"]})
    assert await reconnect(servers.connect, ("a",), over=lambda: True) is None
    assert servers.attempts == []
