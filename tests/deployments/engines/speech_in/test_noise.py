"""The noise suppressor's effect on noise and speech, its delay, and its handling of messages of any length."""

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
    """Return noise of a motor at `hz` hertz with the resonances of a vowel, so it resembles speech."""
    time = np.arange(round(seconds * STT_RATE)) / STT_RATE
    buzz = np.sum([np.sin(2 * np.pi * hz * n * time + n) / n for n in range(1, 30)], axis=0)
    buzz = buzz * (0.3 + np.clip(np.sin(2 * np.pi * 4 * time), 0, 1))
    resonances = [
        lfilter(*iirpeak(peak, peak / width, STT_RATE), buzz) for peak, width in ((500, 80), (1500, 100), (2500, 120))
    ]
    return at_level(np.sum(resonances, axis=0).astype(np.float32), -20)


def cleaned(samples: Samples) -> Samples:
    return pcm16_to_float(suppressor().clean(float_to_pcm16(samples)))


@pytest.fixture(scope="module")
def speech(store: ModelStore) -> Samples:
    """A sentence of a person after 2 s of silence."""
    spoken = moonshine_clips(store.path("human-clips"))[5].pcm().astype(np.float32) / 32768
    return np.concatenate([np.zeros(PAUSE, np.float32), spoken])


@pytest.mark.models
@pytest.mark.parametrize("distance_db", [5, 10, 15])
def test_the_signal_to_noise_ratio_improves(speech: Samples, distance_db: float) -> None:
    """In pink noise 5 to 15 dB below the speech, the signal-to-noise ratio improves by at least 10 dB."""
    noise = at_level(pink(speech.size, seed=4), level_db(speech[PAUSE:]) - distance_db)
    assert gained_db(speech + noise, cleaned(speech + noise)) >= 10


@pytest.mark.models
def test_a_higher_level_removes_more_noise(speech: Samples) -> None:
    """The gain in signal-to-noise ratio rises with the suppression level, from over 3 dB at the lowest level.

    The measurement of every level also has a CPU time per frame above 0.
    """
    rows = [measure(level, speech) for level in LEVELS]
    gains = [row.gained_db for row in rows]
    assert gains == sorted(gains)
    assert gains[0] > 3
    assert all(row.us_per_frame > 0 for row in rows)


@pytest.mark.models
def test_the_delay_is_the_documented_one(speech: Samples) -> None:
    """Speech without noise is returned DELAY_SAMPLES samples later and at most 3 dB quieter."""
    after = cleaned(speech)
    spoken = speech[PAUSE:]
    matches = [float(np.dot(spoken[:40_000], after[PAUSE + delay :][:40_000])) for delay in range(400)]
    assert int(np.argmax(matches)) == DELAY_SAMPLES
    assert level_db(after[PAUSE:]) > level_db(spoken) - 3


@pytest.mark.models
def test_a_machine_causes_fewer_false_starts(store: ModelStore) -> None:
    """With suppression, voice activity detection has at most half as many false starts on machine noise."""
    silero = Silero(store.path("silero-vad"), threads=1)
    silero.warm_up()
    machines = [machine(hz) for hz in (90, 110, 120, 130, 150, 180)]
    without = sum(starts(silero, noise, None) for noise in machines)
    suppressed = sum(starts(silero, noise, suppressor()) for noise in machines)
    assert without >= 4
    assert suppressed <= without / 2


def starts(silero: Silero, samples: Samples, cleaner: NoiseSuppressor | None) -> int:
    """Return how often a session's voice activity detection reports a start of speech in `samples`."""
    audio_input = AudioInput(SpeechSettings(), 40, cleaner)
    found = 0
    pcm = float_to_pcm16(samples)
    for offset in range(0, len(pcm), 640):
        audio_input.append(pcm[offset : offset + 640], offset / 32_000)
        while window := audio_input.window():
            audio = pcm16_to_float(window[0]).reshape(1, VAD_WINDOW)
            state = np.frombuffer(window[1], np.float32).reshape(1, STATE_SIZE)
            probability, after = silero.step(audio, state)
            events = audio_input.decide(float(np.ravel(probability)[0]), after.tobytes())
            found += sum(isinstance(event, SpeechStarted) for event in events)
    return found


@pytest.mark.parametrize("size", [2, 318, 320, 640, 642, 4800])
def test_messages_may_have_any_length(size: int) -> None:
    """The output does not depend on the length of the messages. Only an incomplete last frame (10 ms) is missing."""
    pcm = float_to_pcm16(at_level(pink(STT_RATE, seed=1), -30))
    whole = suppressor().clean(pcm)
    cut = suppressor()
    parts = b"".join(cut.clean(pcm[start : start + size]) for start in range(0, len(pcm), size))
    assert parts == whole
    assert len(whole) == len(pcm) - len(pcm) % FRAME_BYTES


def test_callers_share_nothing() -> None:
    """The noise estimate of one caller does not affect another caller's audio."""
    make = suppressors(NoiseSettings(suppressor="webrtc"))
    assert make is not None
    noisy, other = make(), make()
    noisy.clean(float_to_pcm16(at_level(pink(5 * STT_RATE, seed=1), -20)))
    audio = float_to_pcm16(at_level(pink(STT_RATE, seed=2), -30))
    assert other.clean(audio) == make().clean(audio)


def test_suppression_is_off_by_default() -> None:
    """With default settings there is no noise suppressor."""
    assert suppressors(NoiseSettings()) is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package webrtc_noise_gain, ConfigError names the setting and the command that installs it."""
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[noise\]'") as caught:
        suppressors(NoiseSettings(suppressor="webrtc"))
    assert caught.value.field == "args.noise.suppressor"
