"""The recipe: every event of the corpus, from the tables of texts, voices, cuts of human clips, and noises.

`python -m loadtest.turn_corpus.recipe` writes `manifest.jsonl`, one event per line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from loadtest.turn_corpus import phrases
from loadtest.turn_corpus.event import CorpusEvent, Expected, Part, Scene, Split, chosen, split
from loadtest.turn_corpus.voices import VOICES

MANIFEST = Path(__file__).with_name("manifest.jsonl")
_CUTS = Path(__file__).with_name("human_cuts.csv")

PAUSES_MS = (300, 500, 650, 800, 1000, 1500)
"""Lengths of the inserted pauses, in milliseconds."""

LEVELS_DBFS = (-20.0, -24.0, -28.0)
"""Active speech levels of the callers, in dBFS."""

# Human turns with natural pauses, of up to 20 s. Each row has the names of consecutive clips (file@start in seconds) of
# one reading, which are joined to one turn.
_READINGS = (
    ("two_cities.wav@0.8", "two_cities.wav@4.6", "two_cities.wav@8.3"),
    ("two_cities.wav@13.1", "two_cities.wav@17.1", "two_cities.wav@20.9"),
    ("two_cities.wav@24.3", "two_cities.wav@28.6"),
)
# Recorded telephone prompts, spoken by a person, whose words could be said to stop a reply.
_STOPPING = (
    *("check-number-dial-again", "please-try-call-later", "pls-hold-while-try", "vm-sorry", "pm-invalid-option"),
    *("conf-getpin", "vm-leavemsg", "agent-pass", "dir-nomatch", "privacy-incorrect", "vm-savefolder", "transfer"),
)
_NOISES = {
    "cough": ("cough-1", "cough-2", "cough-3", "cough-4", "cough-5", "cough-6", "throat-1", "throat-2", "throat-3"),
    "noise": ("clicks-1", "clicks-2", "clicks-3", "slam-1", "slam-2", "breath-1", "breath-2", "hum-1", "hum-2"),
}


@cache
def events() -> tuple[CorpusEvent, ...]:
    """Return every event, ordered by id."""
    made = [*_pausing(), *_questions(), *_human(), *_over_reply(), *_idle()]
    return tuple(sorted(made, key=lambda event: event.id))


def _voices(content: str, count: int) -> list[str]:
    """Return the names of up to `count` voices that speak a content.

    A held-out content gets one usual voice and otherwise held-out voices. Another content gets usual voices only.
    """
    usual = _turned([voice.name for voice in VOICES if not voice.held_out], content)
    if split(content) is Split.HELD_OUT:
        return [usual[0], *_turned([voice.name for voice in VOICES if voice.held_out], content)][:count]
    return usual[:count]


def _turned(names: list[str], content: str) -> list[str]:
    """Return the names rotated, so that the first one depends on the content. Contents thus share the voices evenly."""
    first = names.index(chosen(f"voice:{content}", tuple(names)))
    return names[first:] + names[:first]


def _spoken(table: phrases.Phrases, count: int) -> Iterator[tuple[str, str, str, tuple[Part, ...]]]:
    """Yield (content, voice, what the agent asked, parts) for `count` voices of each text of a table."""
    for content, (asked, text) in table.items():
        parts = tuple(Part(part.strip()) for part in text.split("|"))
        for voice in _voices(content, count):
            yield content, voice, asked, parts


def _pausing() -> Iterator[CorpusEvent]:
    for kind, table in phrases.PAUSING.items():
        for content, voice, asked, parts in _spoken(table, 3):
            yield CorpusEvent(
                f"{content}/{voice}",
                kind=kind,
                voice=voice,
                scene=Scene.LISTENING,
                expected=Expected.ANSWER,
                parts=parts,
                pauses_ms=tuple(chosen(f"{content}/{voice}:{n}", PAUSES_MS) for n in range(len(parts) - 1)),
                level_dbfs=chosen(f"level:{content}/{voice}", LEVELS_DBFS),
                asked=asked,
            )


def _questions() -> Iterator[CorpusEvent]:
    for content, voice, asked, parts in _spoken(phrases.QUESTIONS, 3):
        level = chosen(f"level:{content}/{voice}", LEVELS_DBFS)
        yield CorpusEvent(
            f"{content}/{voice}",
            kind="question",
            voice=voice,
            scene=Scene.LISTENING,
            expected=Expected.ANSWER,
            parts=parts,
            level_dbfs=level,
            asked=asked,
        )
    for content, voice, asked, parts in _spoken(phrases.QUESTIONS, 1):
        for background, level in (("babble", -42.0), ("television", -42.0)):
            yield CorpusEvent(
                f"{content}/{voice}-in-{background}",
                kind="question-in-background",
                voice=voice,
                scene=Scene.LISTENING,
                expected=Expected.ANSWER,
                parts=parts,
                level_dbfs=-20.0,
                asked=asked,
                background=background,
                background_dbfs=level,
            )


def human_content(clip: str) -> str:
    """Return the name of a human clip's content, "human." and the recording. All clips of one reading have the same."""
    return f"human.{clip.split('@')[0]}"


def source(clip: str) -> str:
    """Return the voice of a human clip: "human-" and the reading's name or the Debian package that has the clip."""
    if "@" in clip:
        return f"human-{clip.split('.')[0]}"
    return "human-pocketsphinx" if clip[0].isdigit() or "austen" in clip or clip == "goforward" else "human-asterisk"


@cache
def cuts() -> dict[str, list[float]]:
    """Return the seconds at which each human clip can be cut inside a phrase, by the clip's name."""
    found: dict[str, list[float]] = {}
    with _CUTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["clip"], []).append(float(row["cut_s"]))
    return found


def _chosen_clips() -> list[str]:
    """Return the names of the corpus's human clips.

    Only a third of the telephone prompts is included, because one person speaks all of them.
    """
    return [clip for clip in cuts() if source(clip) != "human-asterisk" or chosen(f"clip:{clip}", (True, False, False))]


def _human() -> Iterator[CorpusEvent]:
    for clip in _chosen_clips():
        yield _human_event(clip, "natural", (Part(clip=clip),))
    for reading in _READINGS:
        parts = tuple(Part(clip=clip) for clip in reading)
        name = f"natural-from-{reading[0].partition('@')[2]}"
        yield _human_event(reading[0], name, parts, (0,) * (len(reading) - 1))
    for clip in _chosen_clips():
        for variant, at in enumerate(_spread(cuts()[clip])):
            ends = [0.0, *at, None]
            parts = tuple(Part(clip=clip, start_s=ends[n] or 0.0, end_s=ends[n + 1]) for n in range(len(ends) - 1))
            name = f"cut-{clip.partition('@')[2]}-{variant}" if "@" in clip else f"cut-{variant}"
            pauses = tuple(chosen(f"{clip}/{name}:{n}", PAUSES_MS) for n in range(len(at)))
            yield _human_event(clip, name, parts, pauses)


def _spread(seconds: Sequence[float]) -> list[list[float]]:
    """Return the cuts of each event to make from a clip: one event is cut at the first place, another in the middle.

    `seconds` are all places where the clip can be cut. If there is only one, there is only one event.
    """
    middle = seconds[len(seconds) // 2]
    return [[seconds[0]], [middle]] if middle != seconds[0] else [[seconds[0]]]


def _human_event(clip: str, variant: str, parts: tuple[Part, ...], pauses_ms: tuple[int, ...] = ()) -> CorpusEvent:
    part = f"-{clip.partition('@')[2]}" if variant == "natural" and "@" in clip else ""
    event_id = f"{human_content(clip)}/{variant}{part}"
    level = chosen(f"level:{event_id}", LEVELS_DBFS)
    return CorpusEvent(
        event_id,
        kind="human-pause" if any(pauses_ms) else "human-natural",
        voice=source(clip),
        scene=Scene.LISTENING,
        expected=Expected.ANSWER,
        parts=parts,
        pauses_ms=pauses_ms,
        level_dbfs=level,
    )


def _over_reply() -> Iterator[CorpusEvent]:
    for content, voice, _, parts in _spoken(phrases.INTERRUPTIONS, 3):
        yield _single(f"{content}/{voice}", "interruption", parts[0], voice=voice)
    for clip in _STOPPING:
        event_id = f"{human_content(clip)}/over"
        yield _single(event_id, "interruption", Part(clip=clip), voice=source(clip))
    for content, voice, _, parts in _spoken(phrases.BACKCHANNELS, 3):
        yield _single(f"{content}/{voice}", "backchannel", parts[0], voice=voice)
    for number in range(1, 7):
        yield _single(f"mmhmm-{number}/over", "backchannel", Part("Mm-hmm.", clip=f"mmhmm-{number}"))
    for content, voice, _, parts in _spoken(phrases.SIDE_SPEECH, 2):
        level = chosen(f"side:{content}/{voice}", (-38.0, -42.0, -46.0))
        yield _single(f"{content}/{voice}-over", "side-speech", parts[0], voice=voice, level=level)
    for name in (*_NOISES["cough"], *_NOISES["noise"]):
        kind = "cough" if name in _NOISES["cough"] else "noise"
        level = chosen(f"noise:{name}", (-22.0, -26.0, -30.0))
        yield _single(f"{name}/over", kind, Part(clip=name), level=level)
    for background in ("television", "babble"):
        for number, level in enumerate((-35.0, -40.0, -45.0, -50.0)):
            content = f"{background}-{number}"
            yield _single(f"{content}/over", background, Part(clip=content), level=level)


def _idle() -> Iterator[CorpusEvent]:
    for content, voice, _, parts in _spoken(phrases.SIDE_SPEECH, 1):
        level = chosen(f"idle:{content}/{voice}", (-38.0, -42.0, -46.0))
        yield _single(f"{content}/{voice}-idle", "side-speech", parts[0], voice=voice, level=level)
    for background in ("television", "babble"):
        for number, level in enumerate((-30.0, -35.0, -38.0, -40.0, -45.0, -50.0)):
            content = f"{background}-{number}"
            yield _single(f"{content}/idle", background, Part(clip=content), level=level)
    for name in ("cough-1", "cough-2", "cough-3", "throat-1", "clicks-1", "slam-1", "breath-1", "hum-1"):
        kind = "cough" if name in _NOISES["cough"] else "noise"
        yield _single(f"{name}/idle", kind, Part(clip=name), level=-26.0)


def _single(event_id: str, kind: str, part: Part, *, voice: str = "", level: float = -24.0) -> CorpusEvent:
    """Return an event with one part, at `level` dBFS.

    Nobody speaks to the agent if the id ends with "idle"; otherwise the agent's reply is audible.
    """
    scene = Scene.IDLE if event_id.endswith("idle") else Scene.OVER_REPLY
    rightly = Expected.IGNORE if scene is Scene.IDLE else Expected.GO_ON
    return CorpusEvent(
        event_id,
        kind=kind,
        voice=voice,
        scene=scene,
        expected=Expected.YIELD if kind == "interruption" else rightly,
        parts=(part,),
        level_dbfs=level,
    )


def lines() -> str:
    """Return the text of the manifest: one line of JSON per event."""
    return "".join(json.dumps(event.document(), sort_keys=True) + "\n" for event in events())


if __name__ == "__main__":
    MANIFEST.write_text(lines(), encoding="utf-8")
