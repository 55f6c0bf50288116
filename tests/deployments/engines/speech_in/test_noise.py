"""The noise suppressor: what it takes out, what it leaves, and how late it is."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.signal import iirpeak, lfilter

from actors.listening.audio_input import AudioInput
from actors.stages.ports import NoiseSuppressor
from benchmarks.studies.noise_study import LEVELS, PAUSE, at_level, gained_db, level_db, measure, pink
from deployments.engines.speech_in.noise import DELAY_SAMPLES, FRAME_BYTES, suppressors
from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW, Samples, float_to_pcm16, pcm16_to_float
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import NoiseSettings, SpeechSettings
from rejoinder.core.turns.speech_detector import SpeechStarted
from rejoinder.store.human_clips import moonshine_clips
from rejoinder.store.model_store import ModelStore


def suppressor() -> NoiseSuppressor:
    make = suppressors(NoiseSettings(suppressor="webrtc"))
    assert make is not None
    return make()


def machine(hz: float, seconds: float = 8.0) -> Samples:
    """A loud motor whose case rings like a mouth: steady, and near enough to a vowel to pass for speech."""
    at = np.arange(round(seconds * STT_RATE)) / STT_RATE
    buzz = np.sum([np.sin(2 * np.pi * hz * n * at + n) / n for n in range(1, 30)], axis=0)
    buzz = buzz * (0.3 + np.clip(np.sin(2 * np.pi * 4 * at), 0, 1))
    rings = [
        lfilter(*iirpeak(peak, peak / width, STT_RATE), buzz) for peak, width in ((500, 80), (1500, 100), (2500, 120))
    ]
    return at_level(np.sum(rings, axis=0).astype(np.float32), -20)


def cleaned(samples: Samples) -> Samples:
    return pcm16_to_float(suppressor().clean(float_to_pcm16(samples)))


@pytest.fixture(scope="module")
def speech(store: ModelStore) -> Samples:
    """A person's sentence behind two seconds of nothing."""
    spoken = moonshine_clips(store.path("human-clips"))[5].pcm().astype(np.float32) / 32768
    return np.concatenate([np.zeros(PAUSE, np.float32), spoken])


@pytest.mark.models
@pytest.mark.parametrize("distance_db", [5, 10, 15])
def test_speech_stands_out_more(speech: Samples, distance_db: float) -> None:
    """A room's noise falls by 10 dB or more against the speech in it, from a second on."""
    noise = at_level(pink(speech.size, seed=4), level_db(speech[PAUSE:]) - distance_db)
    assert gained_db(speech + noise, cleaned(speech + noise)) >= 10


@pytest.mark.models
def test_a_higher_level_takes_out_more(speech: Samples) -> None:
    """Each level gains on the one before; the study's row says so, and what it costs."""
    rows = [measure(level, speech) for level in LEVELS]
    gains = [row.gained_db for row in rows]
    assert gains == sorted(gains)
    assert gains[0] > 3
    assert all(row.us_per_frame > 0 for row in rows)


@pytest.mark.models
def test_the_audio_comes_as_late_as_it_says(speech: Samples) -> None:
    """Clean speech is best matched by itself, DELAY_SAMPLES later, and nearly as loud."""
    after = cleaned(speech)
    spoken = speech[PAUSE:]
    matches = [float(np.dot(spoken[:40_000], after[PAUSE + late :][:40_000])) for late in range(400)]
    assert int(np.argmax(matches)) == DELAY_SAMPLES
    assert level_db(after[PAUSE:]) > level_db(spoken) - 3


@pytest.mark.models
def test_a_machine_is_taken_for_speech_less_often(store: ModelStore) -> None:
    """False starts of voice activity fall to half or less; without suppression there are some."""
    silero = Silero(store.path("silero-vad"), threads=1)
    silero.warm_up()
    machines = [machine(hz) for hz in (90, 110, 120, 130, 150, 180)]
    without = sum(starts(silero, noise, None) for noise in machines)
    with_it = sum(starts(silero, noise, suppressor()) for noise in machines)
    assert without >= 4
    assert with_it <= without / 2


def starts(silero: Silero, samples: Samples, cleaner: NoiseSuppressor | None) -> int:
    """How often speech is believed to start, by the ear of a session."""
    ear = AudioInput(SpeechSettings(), 40, cleaner)
    found = 0
    pcm = float_to_pcm16(samples)
    for at in range(0, len(pcm), 640):
        ear.append(pcm[at : at + 640], at / 32_000)
        while window := ear.window():
            audio = pcm16_to_float(window[0]).reshape(1, VAD_WINDOW)
            state = np.frombuffer(window[1], np.float32).reshape(1, STATE_SIZE)
            probability, after = silero.step(audio, state)
            events = ear.decide(float(np.ravel(probability)[0]), after.tobytes())
            found += sum(isinstance(event, SpeechStarted) for event in events)
    return found


@pytest.mark.parametrize("size", [2, 318, 320, 640, 642, 4800])
def test_messages_may_have_any_length(size: int) -> None:
    """All audio comes out in order, but for what does not fill the last 10 ms; cut differently it is the same."""
    pcm = float_to_pcm16(at_level(pink(STT_RATE, seed=1), -30))
    whole = suppressor().clean(pcm)
    cut = suppressor()
    parts = b"".join(cut.clean(pcm[at : at + size]) for at in range(0, len(pcm), size))
    assert parts == whole
    assert len(whole) == len(pcm) - len(pcm) % FRAME_BYTES


def test_callers_share_nothing() -> None:
    """The noise of one is not taken out of another's audio."""
    make = suppressors(NoiseSettings(suppressor="webrtc"))
    assert make is not None
    noisy, other = make(), make()
    noisy.clean(float_to_pcm16(at_level(pink(5 * STT_RATE, seed=1), -20)))
    audio = float_to_pcm16(at_level(pink(STT_RATE, seed=2), -30))
    assert other.clean(audio) == make().clean(audio)


def test_none_is_none() -> None:
    """By default nothing is suppressed, and nothing needs the package."""
    assert suppressors(NoiseSettings()) is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[noise\]'") as caught:
        suppressors(NoiseSettings(suppressor="webrtc"))
    assert caught.value.field == "args.noise.suppressor"
