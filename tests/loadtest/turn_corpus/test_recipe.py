"""Tests of the recipe of the turn-taking corpus: its size, its split, and its equality with the committed manifest."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from loadtest.turn_corpus.event import Expected, Scene, Split, split
from loadtest.turn_corpus.phrases import PAUSING
from loadtest.turn_corpus.recipe import MANIFEST, PAUSES_MS, events, lines
from loadtest.turn_corpus.voices import VOICES

HELD_OUT_VOICES = {voice.name for voice in VOICES if voice.held_out}


def test_the_manifest_is_the_output_of_the_recipe() -> None:
    """`manifest.jsonl` has exactly the events that the recipe makes, so no change of the recipe goes unnoticed."""
    assert MANIFEST.read_text(encoding="utf-8") == lines()


def test_the_corpus_has_at_least_400_events_with_unique_ids() -> None:
    """The corpus has at least 400 events, and all ids differ."""
    assert len(events()) >= 400
    assert len({event.id for event in events()}) == len(events())


def test_about_a_third_of_every_large_kind_is_held_out() -> None:
    """Of all events, and of each kind with at least 20 events, between 20% and 45% are held out."""
    kinds = defaultdict(list)
    for event in events():
        kinds[event.kind].append(event.split is Split.HELD_OUT)
        kinds[""].append(event.split is Split.HELD_OUT)
    for held_out in (values for values in kinds.values() if len(values) >= 20):
        assert 0.2 <= sum(held_out) / len(held_out) <= 0.45


@pytest.mark.parametrize(
    ("content", "expected"),
    [("phone-1", Split.HELD_OUT), ("phone-2", Split.DEVELOPMENT), ("human.two_cities.wav", Split.DEVELOPMENT)],
)
def test_the_split_of_a_content_never_changes(content: str, expected: Split) -> None:
    """The split is computed from the content's name alone, so these contents keep their split on every machine."""
    assert split(content) is expected


def test_no_text_and_no_clip_is_in_both_splits() -> None:
    """Events with the same words, or from the same human clip, are all development or all held out."""
    splits: dict[object, set[Split]] = defaultdict(set)
    for event in events():
        if event.scene is Scene.LISTENING or event.voice.startswith("human-"):
            splits[(event.asked, *(part.text or part.clip for part in event.parts))].add(event.split)
            splits[event.parts[0].clip or event.parts[0].text].add(event.split)
    assert {len(found) for found in splits.values()} == {1}


def test_held_out_voices_speak_held_out_events_only() -> None:
    """A voice that is reserved for the held-out split occurs in it, and never in the development split."""
    by_split: dict[Split, set[str]] = defaultdict(set)
    for event in events():
        by_split[event.split].add(event.voice)
    assert by_split[Split.HELD_OUT] >= HELD_OUT_VOICES
    assert not by_split[Split.DEVELOPMENT] & HELD_OUT_VOICES


def test_every_event_says_what_is_right() -> None:
    """The expected behavior of every event fits its scene.

    A turn of the caller is answered. Over a reply, an interruption ends it and other sound does not. Other sound while
    the agent is idle is ignored.
    """
    rightly = {
        Scene.LISTENING: {Expected.ANSWER},
        Scene.OVER_REPLY: {Expected.YIELD, Expected.GO_ON},
        Scene.IDLE: {Expected.IGNORE},
    }
    for event in events():
        assert event.expected in rightly[event.scene]
        assert (event.expected is Expected.YIELD) == (event.kind == "interruption")


def test_every_pausing_text_has_one_pause_fewer_than_parts_of_the_listed_lengths() -> None:
    """Every event of a kind with pauses has one pause between each two parts of its text.

    Together these events have every pause length in PAUSES_MS.
    """
    lengths = Counter[int]()
    for event in events():
        if event.kind in PAUSING:
            assert len(event.pauses_ms) == len(event.parts) - 1 >= 1
            lengths.update(event.pauses_ms)
    assert set(lengths) == set(PAUSES_MS)


def test_each_line_of_the_manifest_names_split_and_expectation() -> None:
    """The manifest's lines are JSON objects with the fields id, split, expected, scene, parts and pauses_ms."""
    first = json.loads(MANIFEST.read_text(encoding="utf-8").splitlines()[0])
    assert {"id", "split", "expected", "scene", "parts", "pauses_ms"} <= set(first)
