"""Tests of snapshots: their encoding, the tokens, the choice of journals and the table of a journal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.prompt_window import ChatMessage, ConversationSummary
from rejoinder.core.survival.encoding import SnapshotEncoder, UnreadableSnapshot, decode
from rejoinder.core.survival.journal_table import ENTRY_BYTES, MAX_KEYS, JournalTable, SnapshotPut
from rejoinder.core.survival.rendezvous import ranked
from rejoinder.core.survival.resume_token import ResumeToken, read_token, sign_token
from rejoinder.core.survival.snapshot import LastReply, SessionSnapshot, SpokenProgress, next_generation, resume_count
from rejoinder.core.turns.endpointing import DetectionMode, PauseStats, TurnDetection
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Item
from rejoinder.core.wire.session import SessionConfig

FULL = SessionSnapshot(
    "k",
    generation=next_generation(0, 7),
    config=SessionConfig(
        tools=({"type": "function", "name": "f"},),
        input_format=AudioFormat.PCMU,
        detection=TurnDetection(DetectionMode.SERVER_VAD, idle_timeout_ms=5000),
        type="transcription",
    ),
    items=(
        Item("a", text="Grüße", spoken=True),
        Item("b", role="assistant", text=None, type="function_call", call={"call_id": "c", "arguments": "{}"}),
        Item("c", spoken=True, text=None),
    ),
    started_at=12.5,
    owner="digest",
    summary=ConversationSummary("They met.", (ChatMessage("user", "Hello"),)),
    pauses=PauseStats(2, 1.5, 0.9),
    caller_dbfs=-21.5,
    spoken=True,
    reply=LastReply(item_id="d", progress=SpokenProgress("a b", ((1, 100), (3, 200)), 50, 90), earlier_items=("x",)),
)


def test_a_snapshot_survives_its_encoding() -> None:
    """Every field of a snapshot has the same value and type after encoding and decoding, also with cached items."""
    encoder = SnapshotEncoder()
    assert decode(encoder.encode(FULL)) == FULL
    changed = replace(FULL, items=(replace(FULL.items[0], text="new"), *FULL.items[1:]), reply=None)
    assert decode(encoder.encode(changed)) == changed


def test_fields_of_a_newer_version_are_ignored_and_other_versions_refused() -> None:
    """A snapshot with unknown fields is read. One of another version, or no snapshot at all, is refused."""
    found = json.loads(SnapshotEncoder().encode(FULL))
    found["config"]["new_field"] = 1
    assert decode(json.dumps(found).encode()) == FULL
    for wrong in (b"", b"{}", b"[1]", b"\xff", json.dumps(found | {"version": 2}).encode()):
        with pytest.raises(UnreadableSnapshot):
            decode(wrong)


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_every_resume_has_a_greater_generation(generation: int, nonce: int) -> None:
    """The generation after a resume is greater than the one before, whatever the random number is."""
    after = next_generation(generation, nonce)
    assert after > generation
    assert resume_count(after) == resume_count(generation) + 1


def test_a_token_is_read_only_with_its_key_before_its_end() -> None:
    """A token is valid with its signing key, also as one of several, until it expires; any change makes it invalid."""
    token = ResumeToken("session", "owner", 100)
    text = sign_token(token, "key")
    assert read_token(text, ["other", "key"], 99.9) == token
    assert read_token(text, ["key"], 100) is None
    assert read_token(text, ["other"], 0) is None
    assert read_token(text, [], 0) is None
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert read_token(changed, ["key"], 0) is None


def test_nodes_share_the_sessions_and_keep_their_own_when_others_go() -> None:
    """Each of five nodes is first for about a fifth of the sessions. If one goes, the others keep their sessions."""
    nodes = [f"node{number}" for number in range(5)]
    sessions = [f"s{number}" for number in range(1000)]
    first = {session: ranked(session, nodes)[0] for session in sessions}
    assert all(130 < list(first.values()).count(node) < 270 for node in nodes)
    left = {session: ranked(session, reversed(nodes[:-1]))[0] for session in sessions}
    assert all(left[session] == first[session] for session in sessions if first[session] != nodes[-1])


def put(session: str, generation: int = 0, sequence: int = 1, size: int = 10) -> SnapshotPut:
    return SnapshotPut(session, generation, sequence, bytes(size))


def test_the_newest_snapshot_is_kept_and_an_older_host_is_told() -> None:
    """Snapshots that arrive late change nothing. After a claim, the older generation's snapshots are refused."""
    table = JournalTable(10_000, 60)
    assert table.put(put("s", sequence=2, size=20), "old", 0) == 0
    assert table.put(put("s", sequence=1), "old", 0) == 0
    claim = table.claim("s", 5, "new", 1)
    assert claim is not None
    assert (claim.order, len(claim.data), claim.holder) == ((0, 2), 20, "old")
    assert table.put(put("s", sequence=3), "old", 2) == claim.generation > 0
    again = table.claim("s", 1, "third", 3)
    assert again is not None
    assert (again.generation > claim.generation, len(again.data), again.holder) == (True, 20, "new")
    assert table.put(put("s", again.generation), "third", 4) == again.generation
    table.forget("s", claim.generation)
    assert table.claim("s", 0, "x", 5)
    assert table.claim("unknown", 0, "x", 5) is None


def test_a_journal_is_bounded_in_bytes_and_time() -> None:
    """The snapshots that were renewed least recently are dropped for room, and those that were not renewed in time."""
    table = JournalTable(3 * (ENTRY_BYTES + 100), 60)
    for number, session in enumerate(("a", "b", "c", "a", "d")):
        table.put(put(session, sequence=number, size=100), "h", number)
    assert (len(table), table.evicted, table.size) == (3, 1, 3 * (ENTRY_BYTES + 100))
    assert table.claim("b", 0, "h", 5) is None
    table.expire(63.5)
    assert (len(table), table.size) == (1, ENTRY_BYTES + 100)
    assert table.claim("d", 0, "h", 63.5)
    table.put(put("large", size=10_000), "h", 64)
    assert (len(table), table.size) == (0, 0)


def test_signing_keys_are_shared_and_bounded() -> None:
    """Each host gets the keys of all hosts; the oldest keys are dropped."""
    table = JournalTable(1000, 60)
    assert table.share_keys(["a"]) == ("a",)
    assert table.share_keys(["b"]) == ("a", "b")
    for number in range(MAX_KEYS):
        keys = table.share_keys([str(number)])
    assert keys == tuple(str(number) for number in range(MAX_KEYS))
