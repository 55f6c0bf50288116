"""Tests of the sounds around the callers: their level, and how they are mixed with speech."""

from __future__ import annotations

import base64
import json
from random import Random

import numpy as np
import pytest

from loadtest.scenario.background import BACKGROUNDS, LOOP_S, background
from loadtest.scenario.clips import make_clip
from loadtest.scenario.network import NetworkPath, lossier, route
from loadtest.scenario.utterances import encode
from rejoinder.core.audio.pcm import WIRE_RATE, Samples, float_to_pcm16, pcm16_to_float
from rejoinder.core.wire.formats import AudioFormat
from tests.loadtest.callers.scene import silence, tone

CLIPS = [make_clip(name, silence(0.2) + tone(seconds) + silence(0.2)) for name, seconds in (("a", 1.0), ("b", 0.7))]


def _power(audio: Samples) -> float:
    return float(np.square(audio, dtype=np.float64).mean())


def _heard(messages: tuple[bytes, ...]) -> Samples:
    return pcm16_to_float(b"".join(base64.b64decode(json.loads(message)["audio"]) for message in messages))


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_a_background_is_below_the_speech_by_the_ratio(kind: str, snr_db: float) -> None:
    """Its power, over its whole length, is the speech's divided by the ratio. Equal seeds give equal sounds."""
    sound = background(kind, CLIPS, snr_db, seed=1)
    assert sound.size == LOOP_S * WIRE_RATE
    speech = np.mean([_power(pcm16_to_float(clip.pcm)[clip.speech_start : clip.speech_end]) for clip in CLIPS])
    assert 10 * np.log10(speech / _power(sound)) == pytest.approx(snr_db, abs=0.01)
    assert np.array_equal(sound, background(kind, CLIPS, snr_db, seed=1))


@pytest.mark.parametrize("kind", ["noise", "babble"])
def test_another_seed_gives_another_sound(kind: str) -> None:
    """Runs with different seeds differ in their background."""
    assert not np.array_equal(background(kind, CLIPS, 10.0, seed=1), background(kind, CLIPS, 10.0, seed=2))


def test_callers_hear_the_background_while_they_speak_and_while_they_do_not() -> None:
    """It is added to the utterances, whose edges stay, and takes the place of silence."""
    around = background("noise", CLIPS, 10.0, seed=1)
    plain, mixed = encode(CLIPS, AudioFormat.PCM), encode(CLIPS, AudioFormat.PCM, around)
    assert plain.quiet(7) == plain.silence
    assert mixed.quiet(7) == mixed.quiet(7 + len(mixed.background)) != mixed.silence
    assert _power(_heard((mixed.quiet(3), mixed.quiet(4)))) > 0
    for before, after in zip(plain.utterances, mixed.utterances, strict=True):
        assert (before.speech_start_s, before.speech_end_s) == (after.speech_start_s, after.speech_end_s)
        added = _heard(after.messages) - _heard(before.messages)
        expected = pcm16_to_float(float_to_pcm16(around[: added.size]))
        assert added[: WIRE_RATE // 2] == pytest.approx(expected[: WIRE_RATE // 2], abs=2 / 32768)


def test_too_loud_a_mix_is_clipped() -> None:
    """A background that is louder than the speech does not wrap around."""
    loud = encode(CLIPS, AudioFormat.PCM, np.full(WIRE_RATE, 0.99, np.float32))
    assert _heard(loud.utterances[0].messages)[: 3 * WIRE_RATE // 2].min() > -0.5


def test_loss_adds_to_that_of_the_route() -> None:
    """On a local route half of the messages are late by the time until TCP repeats them."""
    lossy = lossier(route("local"), 0.5)
    assert lossier(route("us-asia"), 0.5).loss == pytest.approx(0.505)
    path = NetworkPath(lossy, Random(1))
    late = [path.late_s() for _ in range(1000)]
    assert set(late) == {0.0, 0.06}
    assert sum(seconds > 0 for seconds in late) == pytest.approx(500, abs=60)
