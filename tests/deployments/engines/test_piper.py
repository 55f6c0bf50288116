"""Tests of the Piper voice: chunk sizes, speaking rate, cancellation and intelligibility."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from deployments.engines.piper import FIRST_FRAMES, LEAD_MS, ChunkedNetwork, PiperVoice, WholeNetwork
from deployments.engines.stt.whisper import Whisper
from rejoinder.core.audio.pcm import WIRE_RATE, first_audible, pcm16_to_float
from rejoinder.core.errors import CallerError, ConfigError, ModelError
from rejoinder.core.measuring.wer import pooled_error_rate
from rejoinder.store.model_store import ModelStore

CHUNK_MS = 100
CHUNK_BYTES = WIRE_RATE * CHUNK_MS // 1000 * 2
SENTENCES = (
    "The meeting has been moved to three o'clock on Thursday afternoon.",
    "Please tell me what the weather will be like tomorrow morning.",
    "I would like to order two large pizzas and a bottle of water.",
    "Could you read me the first paragraph of the letter again?",
)
MAX_WORD_ERRORS = 0.10
# People speak 110 to 200 words a minute. The upper limit is higher, because this voice speaks about 240 words a minute
# without pauses between sentences.
SLOWEST_WPM, FASTEST_WPM = 110, 300


@pytest.fixture(scope="module")
def voice(store: ModelStore) -> PiperVoice:
    engine = PiperVoice(store.path("piper-en-us-joe-medium"), threads=2, chunk_ms=CHUNK_MS)
    engine.warm_up()
    return engine


@pytest.mark.models
def test_chunks_have_the_asked_size(voice: PiperVoice) -> None:
    """Every chunk of a sentence, except the first and the last, has exactly `chunk_ms` milliseconds of audio."""
    first, *chunks, last = voice.synthesize(SENTENCES[0])
    assert 0 < len(first) <= CHUNK_BYTES
    assert {len(chunk) for chunk in chunks} == {CHUNK_BYTES}
    assert 0 < len(last) <= CHUNK_BYTES
    assert len(last) % 2 == 0


@pytest.mark.models
def test_the_first_chunk_may_be_shorter(store: ModelStore) -> None:
    """With `chunk_ms` 1000, the first chunk has less than 300 ms of audio, and the second has the full second."""
    slow = PiperVoice(store.path("piper-en-us-joe-medium"), threads=2, chunk_ms=1000)
    slow.warm_up()
    first, *rest = slow.synthesize(SENTENCES[0])
    assert 0 < len(first) < 48 * 300
    assert len(rest[0]) == 48 * 1000


@pytest.mark.models
def test_parts_joined_are_the_whole(voice: PiperVoice, store: ModelStore) -> None:
    """Without random noise, a sentence synthesized in parts has the same samples as one synthesized at once."""
    folder = store.path("piper-en-us-joe-medium")
    whole, chunked = WholeNetwork(next(folder.glob("*.onnx")), 1), voice._network
    for sentence in (*SENTENCES, "No.", "It is."):
        ids = np.array([voice._voice.phonemes_to_ids(voice._voice.phonemize(sentence)[0])], np.int64)
        silent = np.array([0.0, 1.0, 0.0], np.float32)
        feed: dict[str, npt.NDArray[Any]] = {
            "input": ids,
            "input_lengths": np.array([ids.shape[1]], np.int64),
            "scales": silent,
        }
        (expected,) = whole.run(feed)
        parts = list(chunked.run(feed))
        assert len(parts) > 1 or expected.size < 2 * FIRST_FRAMES * 256
        np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


@pytest.mark.models
def test_speech_starts_at_once(voice: PiperVoice) -> None:
    """The leading silence is trimmed to LEAD_MS, within 10 ms for a frame and the resampler's delay."""
    audio = pcm16_to_float(b"".join(voice.synthesize(SENTENCES[1])))
    onset = first_audible(audio, WIRE_RATE)
    assert onset is not None
    assert abs(onset / WIRE_RATE * 1000 - LEAD_MS) <= 10


@pytest.mark.models
def test_it_speaks_at_a_human_pace(voice: PiperVoice) -> None:
    """The voice speaks 110 to 300 words a minute. Lost audio or a wrong sample rate would change the rate."""
    seconds = sum(len(b"".join(voice.synthesize(sentence))) for sentence in SENTENCES) / 2 / WIRE_RATE
    words = sum(len(sentence.split()) for sentence in SENTENCES)
    assert SLOWEST_WPM <= words / seconds * 60 <= FASTEST_WPM


@pytest.mark.models
def test_speed_changes_the_duration(voice: PiperVoice) -> None:
    """At speed 1.4 audio has 0.5 to 0.67 times its length at 0.7: not exactly 0.5, as phonemes have whole frames."""
    slow, fast = (len(b"".join(voice.synthesize(SENTENCES[2], speed))) for speed in (0.7, 1.4))
    assert 0.5 <= fast / slow <= 0.67


class CountingSession:
    """Wrapper of an ONNX session that counts how often the network runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.runs = 0

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        return self._session.run(*arguments)


@pytest.mark.models
def test_closing_stops_before_the_next_sentence(voice: PiperVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the iterator of chunks is closed, no further sentence of the text is synthesized."""
    network = voice._network
    assert isinstance(network, ChunkedNetwork)
    session = CountingSession(network._frames)
    monkeypatch.setattr(network, "_frames", session)
    chunks = voice.synthesize(" ".join(SENTENCES))
    next(chunks)
    chunks.close()
    assert session.runs == 1
    assert list(chunks) == []


@pytest.mark.models
def test_nothing_speakable_is_no_audio(voice: PiperVoice) -> None:
    """Empty text and bare punctuation give no audio and no error."""
    for text in ("", "   ", "..."):
        assert b"".join(voice.synthesize(text)) == b""


@pytest.mark.models
def test_out_of_range_requests_are_the_callers_error(voice: PiperVoice) -> None:
    """An invalid speed or a too long text raises CallerError at the call, before the first chunk is requested."""
    for text, speed in (("Hello.", 0.1), ("Hello.", 9.0), ("a" * 5000, 1.0)):
        with pytest.raises(CallerError):
            voice.synthesize(text, speed)


@pytest.mark.models
def test_what_it_says_is_understood(voice: PiperVoice, store: ModelStore) -> None:
    """Whisper transcribes the voice with a word error rate of at most 10%."""
    whisper = Whisper(store.path("whisper-base"))
    spoken = [pcm16_to_float(b"".join(voice.synthesize(sentence))) for sentence in SENTENCES]
    results = whisper.transcribe_batch([soxr.resample(audio, WIRE_RATE, 16_000).astype(np.float32) for audio in spoken])
    assert pooled_error_rate([(s, r.text) for s, r in zip(SENTENCES, results, strict=True)]) <= MAX_WORD_ERRORS


def test_a_folder_without_a_voice_is_refused(tmp_path: Path) -> None:
    """A folder without a voice model raises ModelError."""
    with pytest.raises(ModelError):
        PiperVoice(tmp_path)


def test_without_piper_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package piper-tts, ConfigError names the extra of the package to install."""
    monkeypatch.setattr(builtins, "__import__", _refusing("piper", builtins.__import__))
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[piper\]'"):
        PiperVoice(tmp_path)


def _refusing(package: str, real: Callable[..., object]) -> Callable[..., object]:
    def load(name: str, *rest: object) -> object:
        if name == package:
            raise ImportError(name)
        return real(name, *rest)

    return load
