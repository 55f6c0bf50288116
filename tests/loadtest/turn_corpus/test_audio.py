"""Tests of the audio of corpus events: levels, pauses between parts, the cache, and identical samples every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest.turn_corpus import audio as making
from loadtest.turn_corpus import sounds
from loadtest.turn_corpus.audio import LEAD_S, TAIL_S, audio, missing
from loadtest.turn_corpus.event import CorpusEvent, Expected, Part, Scene
from loadtest.turn_corpus.voices import VOICES
from rejoinder.core.audio.pcm import STT_RATE, Samples, float_to_pcm16, pcm16_to_float

VOICE = "flite-slt"


def _spoken(text: str) -> Samples:
    """Return a tone of 0.4 s between silences of 0.1 s, in place of the synthetic voice's audio of `text`."""
    tone = 0.1 * np.sin(np.arange(round(0.4 * STT_RATE)) * 2 * np.pi * (200 + 10 * len(text)) / STT_RATE)
    return np.pad(tone, round(0.1 * STT_RATE)).astype(np.float32)


@pytest.fixture(autouse=True)
def _voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the synthetic voices, which these tests do not need, with `_spoken`."""
    monkeypatch.setattr(
        making, "speak", lambda _, text: np.frombuffer(float_to_pcm16(_spoken(text)), np.int16), raising=True
    )


def _event(**changes: object) -> CorpusEvent:
    fields: dict[str, object] = {
        "id": "phone-9/flite-slt",
        "kind": "number",
        "voice": VOICE,
        "scene": Scene.LISTENING,
        "expected": Expected.ANSWER,
        "parts": (Part("five five five"), Part("zero one"), Part("two.")),
        "pauses_ms": (500, 800),
    }
    return CorpusEvent(**(fields | changes))  # type: ignore[arg-type]  # values of several types


def test_pauses_have_the_length_of_the_recipe(tmp_path: Path) -> None:
    """The pauses of an event's audio have their configured lengths, 500 and 800 ms, and contain room noise.

    Speech starts LEAD_S seconds after the start, and the audio ends TAIL_S seconds after the speech.
    """
    made = audio(_event(), tmp_path)
    assert [end - start for start, end in made.pauses] == pytest.approx([0.5, 0.8], abs=0.03)
    assert made.speech_start_s == pytest.approx(LEAD_S, abs=0.03)
    assert made.speech_end_s == pytest.approx(LEAD_S + 3 * 0.4 + 1.3, abs=0.1)
    assert made.pcm.size / STT_RATE == pytest.approx(made.speech_end_s + TAIL_S, abs=0.05)
    start, end = (round(at * STT_RATE) for at in made.pauses[1])
    quiet = pcm16_to_float(made.pcm[start + 400 : end - 400].tobytes())
    assert 10 * np.log10(np.square(quiet).mean()) == pytest.approx(making.ROOM_DBFS, abs=3)


def test_speech_has_the_level_of_the_recipe(tmp_path: Path) -> None:
    """The level of an event's speech, silences aside, is the event's `level_dbfs`, to within 1 dB."""
    made = audio(_event(level_dbfs=-30.0), tmp_path)
    spoken = pcm16_to_float(made.pcm[: round(made.speech_end_s * STT_RATE)].tobytes())
    assert sounds.active_dbfs(spoken) == pytest.approx(-30.0, abs=1.0)


def test_the_same_event_has_the_same_samples_and_another_one_has_others(tmp_path: Path) -> None:
    """An event whose audio is made twice, in two empty cache folders, has identical samples.

    An event with another pause has another file in the cache.
    """
    first, second = audio(_event(), tmp_path / "a"), audio(_event(), tmp_path / "b")
    assert np.array_equal(first.pcm, second.pcm)
    assert audio(_event(pauses_ms=(500, 801)), tmp_path / "a").file != first.file


def test_the_cache_is_read_and_the_voice_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request for an event's audio reads the cached file and does not synthesize the voice again."""
    first = audio(_event(), tmp_path)

    def fails(*_: object) -> None:
        raise AssertionError("the voice was asked again")

    monkeypatch.setattr(making, "speak", fails)
    assert np.array_equal(audio(_event(), tmp_path).pcm, first.pcm)


@pytest.mark.parametrize(
    "name", ["cough-1", "cough-3", "throat-2", "clicks-1", "slam-2", "breath-1", "hum-2", "mmhmm-3"]
)
def test_noises_are_sound_of_the_asked_level(tmp_path: Path, name: str) -> None:
    """A computed noise has the event's level to within 1.5 dB, and the same samples every time."""
    event = _event(id=f"{name}/over", voice="", parts=(Part(clip=name),), pauses_ms=(), level_dbfs=-26.0)
    made = audio(event, tmp_path)
    sounding = pcm16_to_float(made.pcm.tobytes())
    assert sounds.active_dbfs(sounding) == pytest.approx(-26.0, abs=1.5)
    assert np.array_equal(sounds.noise(name), sounds.noise(name))


def test_room_noise_of_a_recording_has_its_level() -> None:
    """The noise that fills a pause within a human clip has the level of the clip's quietest part, to within 3 dB."""
    hiss = np.random.Generator(np.random.PCG64(1)).normal(0, 0.003, STT_RATE).astype(np.float32)
    speech = np.concatenate([hiss, 0.2 * np.sin(np.arange(STT_RATE) / 5).astype(np.float32)])
    filled = sounds.own_room(speech, 0.7, seed=3)
    assert filled.size == round(0.7 * STT_RATE)
    level = 10 * np.log10(np.square(filled[1000:-1000]).mean())
    assert level == pytest.approx(20 * np.log10(0.003), abs=3)


def test_a_machine_without_a_voice_leaves_its_events_out_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """`missing` maps the name of a voice that is not installed to the events that need it, and to no others."""
    voice = next(voice for voice in VOICES if voice.name == VOICE)
    monkeypatch.setattr(making, "missing_voices", lambda: [voice])
    other = _event(id="phone-9/espeak-us", voice="espeak-us")
    assert missing([_event(), other]) == {VOICE: [_event()]}
