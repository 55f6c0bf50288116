"""Audio of an event, made from its parts and kept in a cache.

LEAD_S seconds of room noise precede the parts, and TAIL_S seconds follow them. In a human clip, this noise and that of
the pauses come from the clip's own room. Below a synthetic voice there is a faint artificial room noise throughout.
"""

from __future__ import annotations

import hashlib
import json
import wave
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtest.turn_corpus import sounds
from loadtest.turn_corpus.event import CorpusEvent, Part
from loadtest.turn_corpus.voices import BY_NAME, missing_voices, speak
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, Samples, first_audible, float_to_pcm16, last_audible
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import open_store
from rejoinder.store.human_clips import HumanClip
from rejoinder.store.human_corpus import human_clips
from rejoinder.store.model_store import default_directory

VERSION = 3
"""Version of the code that makes audio. Increase it when the audio of an unchanged event changes: cached files of other
versions are not used.
"""

LEAD_S, TAIL_S = 0.4, 2.5
BACKGROUND_S = 6.0
"""Length in seconds of an event that consists of television or babble only."""

ROOM_DBFS = -62.0
# A frame belongs to a part if its level is at most this many dB below the part's active level. The margin is wide,
# because synthetic voices fade out at their ends.
_PART_DB = 30.0
# A frame counts as speech if its level is at most 15.9 dB below the active level (ITU-T P.56), or above -40 dBFS. Both
# numbers are those of `loadtest/scenario/clips.py`, so that latencies can be compared.
_SPEECH_DB, _HIGHEST_GATE_DBFS = 15.9, -40.0
_READER = "two_cities.wav"


@dataclass(frozen=True, slots=True)
class EventAudio:
    """The sound of one event. Times are seconds after its first sample.

    Attributes:
        pcm: 16 kHz mono samples.
        speech_start_s: Start of the first frame that counts as speech by ITU-T P.56.
        speech_end_s: End of the last frame that counts as speech by ITU-T P.56. Latency is measured from here.
        pauses: (start, end) of each inserted pause, in which no part is audible.
        file: The event's WAV file in the cache.
    """

    pcm: npt.NDArray[np.int16]
    speech_start_s: float
    speech_end_s: float
    pauses: tuple[tuple[float, float], ...]
    file: Path


def cache_folder() -> Path:
    """Return the folder of the cache, beside the model store."""
    return default_directory().parent / "turn-corpus"


def missing(events: Iterable[CorpusEvent]) -> dict[str, list[CorpusEvent]]:
    """Return the events whose audio this machine cannot make, by what is missing: a voice or a human clip's source."""
    voices = {voice.name for voice in missing_voices()}
    found: dict[str, list[CorpusEvent]] = {}
    for event in events:
        human = event.voice.startswith("human-")
        if event.voice in voices or (human and any(part.clip not in _human() for part in event.parts)):
            found.setdefault(event.voice, []).append(event)
    return found


def clip_text(clip: str) -> str:
    """Return the words of a human clip; "" if it is not installed."""
    found = _human().get(clip)
    return found.text if found else ""


def audio(event: CorpusEvent, folder: Path | None = None) -> EventAudio:
    """Return the audio of an event. It is read from the cache, or made and written there.

    `folder` is the folder of the cache; None for `cache_folder`.

    Raises:
        ConfigError: The event's voice is not installed.
    """
    folder = folder or cache_folder()
    identity = json.dumps([VERSION, event.document()], sort_keys=True)
    name = event.id.replace("/", "__") + "-" + hashlib.sha256(identity.encode()).hexdigest()[:12]
    file = folder / f"{name}.wav"
    if not file.with_suffix(".json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        pcm, marks = _made(event)
        with wave.open(str(file), "wb") as out:
            out.setparams((1, SAMPLE_BYTES, STT_RATE, 0, "NONE", ""))
            out.writeframes(pcm)
        # Write the JSON file with the marks (start, end, pauses) last: its existence shows that the audio is complete.
        file.with_suffix(".json").write_text(json.dumps(asdict(marks) | {"id": event.id}), encoding="utf-8")
    with wave.open(str(file)) as stored:
        samples = np.frombuffer(stored.readframes(stored.getnframes()), "<i2")
    found = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    pauses = tuple((start, end) for start, end in found["pauses"])
    return EventAudio(samples, found["speech_start_s"], found["speech_end_s"], pauses=pauses, file=file)


@dataclass(frozen=True, slots=True)
class _Marks:
    speech_start_s: float
    speech_end_s: float
    pauses: tuple[tuple[float, float], ...]


def _made(event: CorpusEvent) -> tuple[bytes, _Marks]:
    seed = int(hashlib.sha256(event.id.encode()).hexdigest()[:6], 16)
    sounding = [_part(event, part) for part in event.parts]
    human = event.voice.startswith("human-")
    joined = sounds.at_level(np.concatenate(sounding), event.level_dbfs)
    gain_ends = np.cumsum([part.size for part in sounding])[:-1]
    scaled = np.split(joined, gain_ends)

    def silence(seconds: float, number: int) -> Samples:
        return (
            sounds.own_room(joined, seconds, seed + number)
            if human
            else np.zeros(round(seconds * STT_RATE), np.float32)
        )

    pieces = [silence(LEAD_S, 0)]
    edges: list[tuple[int, int]] = []
    at = pieces[0].size
    for number, part in enumerate(scaled):
        first, last = _bounds(part, event.level_dbfs - _PART_DB)
        edges.append((at + first, at + last))
        pieces.append(sounds.faded(part) if number < len(event.pauses_ms) and event.pauses_ms[number] else part)
        at += part.size
        pause_s = event.pauses_ms[number] / 1000 if number < len(event.pauses_ms) else TAIL_S
        if pause_s:
            pieces.append(silence(pause_s, number + 1))
            at += pieces[-1].size
    mixed = np.concatenate(pieces)
    speech = [end / STT_RATE for end in _bounds(mixed, min(event.level_dbfs - _SPEECH_DB, _HIGHEST_GATE_DBFS))]
    pauses = [(edges[n][1] / STT_RATE, edges[n + 1][0] / STT_RATE) for n, pause in enumerate(event.pauses_ms) if pause]
    mixed = mixed + _below(event, mixed.size, seed)
    return float_to_pcm16(mixed), _Marks(speech[0], speech[1], tuple(pauses))


def _below(event: CorpusEvent, size: int, seed: int) -> Samples:
    """Return `size` samples to add to the whole event: its background, or room noise below a synthetic voice.

    A human clip without a background gets zeros, because it has room noise already.
    """
    seconds = size / STT_RATE
    if event.background:
        return np.resize(sounds.at_level(_background(event.background, seconds, seed), event.background_dbfs), size)
    if event.voice.startswith("human-"):
        return np.zeros(size, np.float32)
    return np.resize(sounds.room(seconds, ROOM_DBFS, seed), size)


def _part(event: CorpusEvent, part: Part) -> Samples:
    """Return the samples of one part, at the level of their source. The caller scales them to the event's level."""
    if event.voice in BY_NAME:
        spoken = _float(speak(event.voice, _read_aloud(part.text)))
        first, last = _bounds(spoken, sounds.active_dbfs(spoken) - _PART_DB)
        spoken = spoken[first:last]
        return sounds.far(spoken, len(part.text)) if event.kind == "side-speech" else spoken
    if event.voice:
        clip = _float(_human()[part.clip].pcm())
        end = None if part.end_s is None else round(part.end_s * STT_RATE)
        return clip[round(part.start_s * STT_RATE) : end]
    kind, _, number = part.clip.partition("-")
    if kind in ("television", "babble"):
        return _background(kind, BACKGROUND_S, int(number))
    return sounds.noise(part.clip)


def _read_aloud(text: str) -> str:
    """Return a part's text for the synthesizer, with a comma at the end unless it ends with punctuation.

    The comma makes the voice sound as if the turn continues.
    """
    return text if text[-1] in ".?!," else f"{text},"


@cache
def _readers() -> list[Samples]:
    """Return the two readings in the model store, which serve as television and babble: every machine has them."""
    folder = open_store(ModelStoreSettings()).path("human-clips")
    return [_float(HumanClip("moonshine", file, folder / file, "").pcm()) for file in (_READER, "beckett.wav")]


def _background(kind: str, seconds: float, seed: int) -> Samples:
    readers = _readers()
    size = round(seconds * STT_RATE)
    if kind == "television":
        offset = seed * 4 * STT_RATE % max(1, readers[0].size - size)
        return sounds.loudspeaker(np.resize(readers[0][offset:], size))
    parts = [np.roll(readers[number % 2], (seed + number) * 3 * STT_RATE) for number in range(9)]
    return sounds.babble(parts, seconds)


@cache
def _human() -> dict[str, HumanClip]:
    return {clip.name: clip for clip in human_clips(open_store(ModelStoreSettings()).path("human-clips"))}


def _bounds(samples: Samples, gate_dbfs: float) -> tuple[int, int]:
    """Return the indexes of the first audible sample and of the sample after the last audible one.

    A sample is audible if its 20 ms frame is louder than `gate_dbfs`. Without any, return the bounds of `samples`.
    """
    first = first_audible(samples, STT_RATE, gate_dbfs, 20.0)
    last = last_audible(samples, STT_RATE, gate_dbfs, 20.0)
    return first or 0, samples.size if last is None else min(last, samples.size)


def _float(pcm: npt.NDArray[np.int16]) -> Samples:
    scaled: Samples = pcm.astype(np.float32) / np.float32(32768)
    return scaled
