"""Tests of the Piper voice: chunk sizes, speaking rate, cancellation and intelligibility."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import soxr

from deployments.engines.piper import FIRST_FRAMES, LEAD_MS, OVERLAPS, ChunkedNetwork, PiperVoice, WholeNetwork
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
    """Silence before the first word is trimmed to LEAD_MS milliseconds, give or take 10 ms.

    The tolerance covers an audio frame and the resampler's delay.
    """
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


def two_speakers(source: Path, folder: Path) -> Path:
    """Write a variant of the voice in `source` whose decoder depends on a speaker, as in voices with several speakers.

    The second speaker adds a constant to the output of the decoder's first layer. Return the path of the network.
    """
    original = next(source.glob("*.onnx"))
    model = onnx.load(str(original))
    first = next(node for node in model.graph.node if node.name == "/dec/conv_pre/Conv")
    position = list(model.graph.node).index(first)
    output, first.output[0] = first.output[0], "without_speaker"
    for node in model.graph.node:  # an unused constant has the new input's name: rename it
        node.input[:] = ["constant" if name == "sid" else name for name in node.input]
    for constant in model.graph.initializer:
        constant.name = "constant" if constant.name == "sid" else constant.name
    table = onnx.numpy_helper.from_array(np.array([[[0.0]], [[0.5]]], np.float32), "speakers")
    model.graph.initializer.append(table)
    model.graph.input.append(onnx.helper.make_tensor_value_info("sid", onnx.TensorProto.INT64, [1]))
    model.graph.node.insert(position + 1, onnx.helper.make_node("Gather", ["speakers", "sid"], ["speaker"], axis=0))
    model.graph.node.insert(position + 2, onnx.helper.make_node("Add", ["without_speaker", "speaker"], [output]))
    file = folder / "two.onnx"
    onnx.save(model, str(file))
    config = json.loads(original.with_name(f"{original.name}.json").read_text(encoding="utf-8"))
    config |= {"num_speakers": 2, "speaker_id_map": {"ann": 0, "bob": 1}}
    file.with_name("two.onnx.json").write_text(json.dumps(config), encoding="utf-8")
    return file


@pytest.mark.models
def test_a_voice_with_several_speakers_speaks_as_the_chosen_one(store: ModelStore, tmp_path: Path) -> None:
    """The setting `tts.speaker` selects the voice's speaker, both in streamed and in whole synthesis.

    A speaker number that the voice does not have is refused.
    """
    file = two_speakers(store.path("piper-en-us-joe-medium"), tmp_path)
    feed: dict[str, npt.NDArray[Any]] = {
        "input": np.array([[1, 20, 3, 40, 5, 60, 2]], np.int64),
        "input_lengths": np.array([7], np.int64),
        "scales": np.array([0.0, 1.0, 0.0], np.float32),
    }
    names = (*feed, "sid")
    spoken = []
    for number in (0, 1):
        one = feed | {"sid": np.array([number], np.int64)}
        whole = np.concatenate(list(WholeNetwork(file, 2, names).run(one)))
        parts = np.concatenate(list(ChunkedNetwork(file, 2, names).run(one)))
        assert np.abs(whole - parts).max() < 1e-3
        spoken.append(whole)
    assert np.abs(spoken[0] - spoken[1]).max() > 0.01
    assert b"".join(PiperVoice(file, speaker=1).synthesize("Hello."))
    with pytest.raises(ConfigError, match="has 2 speakers"):
        PiperVoice(file, speaker=2)


@pytest.mark.models
def test_parts_overlap_as_far_as_the_decoder_looks(store: ModelStore) -> None:
    """The overlap of synthesized parts, in frames, is as large as the decoder's context requires.

    It is the smallest of OVERLAPS for the default voice, and 16 for a decoder with a context of 14 frames.
    """
    network = ChunkedNetwork(next(store.path("piper-en-us-joe-medium").glob("*.onnx")), 2)
    assert network._overlap == OVERLAPS[0]
    decoded = network._decoded
    # A decoder whose samples depend on 14 frames on either side: a smaller overlap changes them.
    network._decoded = lambda *a, overlap, **k: decoded(*a, overlap=overlap, **k) + (overlap < 14)  # type: ignore[method-assign]
    assert network._needed_overlap(192, {}) == 16
