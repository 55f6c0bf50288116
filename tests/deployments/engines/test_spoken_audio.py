"""Tests that a listener understands spoken text: cases of the table are synthesized and transcribed."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from deployments.engines.piper import PiperVoice
from deployments.engines.stt.whisper import Whisper
from rejoinder.core.audio.pcm import WIRE_RATE, Samples, pcm16_to_float
from rejoinder.core.measuring.wer import pooled_error_rate
from rejoinder.core.reply.segmenter import Segmenter, segment_of
from rejoinder.store.model_store import ModelStore
from tests.core.reply.spoken.cases import ENGLISH, cases

CASES = [(written, spoken) for written, spoken, starred in cases(ENGLISH) if starred]
MAX_WORD_ERRORS = 0.15
"""Bound of the word error rate over all cases. The voice is random: six runs had 6.1% to 10.5%."""


def audio(voice: PiperVoice, texts: list[str]) -> Samples:
    """Return 16 kHz audio of texts that are synthesized one after another."""
    pcm = b"".join(b"".join(voice.synthesize(text)) for text in texts)
    samples: Samples = soxr.resample(pcm16_to_float(pcm), WIRE_RATE, 16_000).astype(np.float32)
    return samples


def segments(text: str) -> list[str]:
    """Return the spoken text of each segment of `text`, with the default lengths of 6 and 24 words."""
    segmenter = Segmenter(6, 24)
    return [part.spoken for part in [*segmenter.push(text), *segmenter.flush()]]


@pytest.mark.models
def test_spoken_text_is_understood(store: ModelStore) -> None:
    """Whisper transcribes the audio of at least 40 cases of the table with at most 15% word errors.

    Transcripts with figures ("$5") are converted to spoken words before the comparison. Without spoken text, when the
    voice gets the written text, there are at least twice as many errors.
    """
    voice, whisper = PiperVoice(store.path("piper-en-us-joe-medium")), Whisper(store.path("whisper-base"))
    voice.warm_up()
    assert len(CASES) >= 40
    rates = {}
    for name, clips in (
        ("spoken", [audio(voice, segments(written)) for written, _ in CASES]),
        ("written", [audio(voice, [written]) for written, _ in CASES]),
    ):
        heard = [result.text for clip in clips for result in whisper.transcribe_batch([clip])]
        pairs = [(spoken, segment_of(text, "en").spoken) for (_, spoken), text in zip(CASES, heard, strict=True)]
        rates[name] = pooled_error_rate(pairs)
        for (written, _), pair, text in zip(CASES, pairs, heard, strict=True):
            if errors := pooled_error_rate([pair]):
                print(f"{name} {errors:.2f}: {written!r} heard {text!r} as {pair[1]!r}, expected {pair[0]!r}")
        print(f"{name}: word error rate {rates[name]:.3f} over {len(CASES)} cases")
    assert rates["spoken"] <= MAX_WORD_ERRORS
    assert rates["written"] >= 2 * rates["spoken"]


def test_the_voice_does_not_split_a_segment_again() -> None:
    """Each segment of the table's cases is one sentence for Piper's phonemizer, so "Mr." causes no pause."""
    from piper.phonemize_espeak import EspeakPhonemizer  # imported here, because piper is an optional extra

    phonemizer = EspeakPhonemizer()
    parts = [part for written, _, _ in cases(ENGLISH) for part in segments(written)]
    assert [part for part in parts if len(phonemizer.phonemize("en-us", part)) != 1] == []
    assert len(phonemizer.phonemize("en-us", "It is Mr. Smith.")) == 2  # written text is split after "Mr."
