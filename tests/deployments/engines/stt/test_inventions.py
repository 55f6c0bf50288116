"""Tests of the rules against text that nobody said.

Recognizers repeat themselves on babble and clicks, guess words on noise, and invent typical phrases on silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from deployments.engines.pcm import Pcm
from deployments.engines.speech_in.silero import Silero
from deployments.engines.stt.cascade import FirstOpinion, SttCascade
from deployments.engines.stt.transcript_guards import Hypothesis, agree, is_invention, settled_text
from deployments.engines.stt.whisper import TimedWord, WhisperResult
from deployments.vad import contains_speech
from rejoinder.core.audio.pcm import STT_RATE, float_to_pcm16
from rejoinder.store.human_clips import moonshine_clips
from rejoinder.store.model_store import ModelStore

SORRY = "I'm sorry, I'm sorry. " * 9
FIRST = Hypothesis("I am the first to be. " * 9, -0.5, 0.4, finished=False, duration_s=10.0)
AGAIN = Hypothesis(SORRY, -0.55, 0.41, finished=True, duration_s=10.0)


@pytest.mark.parametrize(
    ("before", "again", "text"),
    [
        (FIRST, AGAIN, ""),
        (replace(AGAIN, finished=False), AGAIN, ""),
        (FIRST, replace(AGAIN, text="I can do it now. " * 9), ""),
        (FIRST, replace(AGAIN, text="The shop is closed on Sunday."), "The shop is closed on Sunday."),
        (FIRST, replace(AGAIN, text="try some periods of time.", avg_logprob=-1.4, no_speech_prob=0.36), ""),
        (FIRST, replace(AGAIN, text="quiet but human.", avg_logprob=-1.4, no_speech_prob=0.1), "quiet but human."),
        (FIRST, replace(AGAIN, no_speech_prob=0.9), ""),
        (
            FIRST,
            replace(AGAIN, text="I waited for an hour and then I called the hotline, the hotline, the hotline, "
                    "the hotline, the hotline."),
            "I waited for an hour and then I called the hotline,",
        ),
    ],
    ids=["babble", "both agree", "phrase nine times", "sane", "guess", "quiet voice", "no speech", "loop at the end"],
)  # fmt: skip
def test_the_second_decode_is_not_believed_blindly(before: Hypothesis, again: Hypothesis, text: str) -> None:
    """The text of a second decode is dropped if the decode repeats itself or is a guess on a sound without speech.

    If only its end repeats, the first occurrence of the repeated words is kept.
    """
    assert settled_text(before, again) == text


@pytest.mark.parametrize(
    "said", ["no no no no no no", "five five five five five", "five five five five, five five five five."]
)
def test_an_honest_repetition_is_kept(said: str) -> None:
    """Words that occur many times are kept if both decodes of the clip have them: the caller repeated them."""
    heard = Hypothesis(said, -0.3, 0.1, finished=True, duration_s=4.0)
    assert settled_text(replace(heard, text=said.replace(".", "")), heard) == said


def test_repetition_of_symbols_ends() -> None:
    """Signs without letters, such as notes, are not words: the search for repeated words skips them and ends."""
    notes = Hypothesis("\u266a \u266a \u266a a a a a a a a \u266a \u266a", -0.2, 0.1, finished=False, duration_s=4.0)
    assert settled_text(FIRST, notes) in ("", "\u266a \u266a \u266a a \u266a \u266a")


@pytest.mark.parametrize(
    ("text", "no_speech", "first", "invented"),
    [
        ("Thank you.", 0.56, "Yeah", True),
        ("Thank you very much.", 0.35, "They are a lot.", True),
        ("Thank you.", 0.56, "Thank you", False),
        ("Thank you.", 0.1, "Yeah", False),
        ("Where is it?", 0.5, "Yeah", False),
    ],
)
def test_typical_inventions_need_a_second_witness(text: str, no_speech: float, first: str, invented: bool) -> None:
    """ "Thank you" on a clip that may be noise is believed only if the first-pass transcript has one of its words too.

    Other texts, and clips that are surely speech, are believed. `no_speech` is the probability that nobody speaks.
    """
    assert is_invention(text, no_speech, first) is invented


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("4242-1616-8899-0321-1616-8899-0321-1616-8899-0", "4242 1616 8899 0321", True),
        ("It's our four, four, one, seven, zero.", "It's R44170", True),
        ("Okay, so.", "you", False),
        ("But.", "Thank you for watching.", False),
        ("", "", False),
        ("So", "So", False),
        ("Thank you for watching!", "Thank you.", False),
    ],
)
def test_two_recognizers_that_agree_prove_speech(first: str, second: str, together: bool) -> None:
    """Digits that both have heard are speech, although Whisper calls them noise; a short word proves nothing."""
    assert agree(first, second) is together


def test_a_rejected_text_that_the_first_pass_confirms_is_believed() -> None:
    """The cascade returns what Whisper took for noise, if the first pass has heard the same words."""
    rejected = WhisperResult("", -0.4, no_speech_prob=0.8, rejected="4242 1616 8899 0321")
    cascade = SttCascade(_Answering(rejected))
    confirmed, alone = (
        cascade.second_opinion([b"\0\0"], [FirstOpinion(text, -0.2)])[0].text
        for text in ("4242-1616-8899-0321.", "Hm.")
    )
    assert (confirmed, alone) == ("4242 1616 8899 0321", "")


class _Answering:
    """A main recognizer that gives one result."""

    name = "answering"

    def __init__(self, result: WhisperResult) -> None:
        self._result = result

    def warm_up(self) -> None:
        """Do nothing."""

    def transcribe_batch(self, clips: Sequence[Pcm], doubtful: Sequence[bool] | None = None) -> list[WhisperResult]:
        """Return the result for each clip."""
        return [self._result for _ in clips]

    def word_times(self, clip: Pcm, text: str, language: str = "") -> list[TimedWord]:
        """Return no words."""
        return []


def _clicks(seconds: float, rate: float) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(3)
    samples = np.zeros(round(seconds * STT_RATE))
    for at in random.integers(0, samples.size - 60, round(seconds * rate)):
        samples[at : at + 60] += random.normal(0, 0.5, 60) * np.exp(-np.arange(60) / 10)
    return samples


def _sound(kind: str, seconds: float) -> bytes:
    time = np.arange(round(seconds * STT_RATE)) / STT_RATE
    sounds = {
        "silence": lambda: 0 * time,
        "noise": lambda: np.random.default_rng(4).normal(0, 0.02, time.size),
        "hum": lambda: 0.05 * np.sin(2 * np.pi * 50 * time),
        "clicks": lambda: _clicks(seconds, 4),
        "keyboard": lambda: _clicks(seconds, 15),
    }
    return float_to_pcm16(sounds[kind]())


@pytest.mark.models
@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "clicks", "keyboard"])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0, 18.0])
def test_sounds_without_speech_contain_none(store: ModelStore, kind: str, seconds: float) -> None:
    """`contains_speech` is False for silence, noise, hum, clicks and typing of 0.1 to 18 s.

    It checks audio that a client commits with turn detection off.
    """
    silero = Silero(store.path("silero-vad"))
    assert not contains_speech(silero, _sound(kind, seconds))


@pytest.mark.models
def test_every_human_clip_contains_speech(store: ModelStore) -> None:
    """`contains_speech` is True for every human clip, also after 5 s of silence and 20 dB quieter."""
    silero = Silero(store.path("silero-vad"))
    for clip in moonshine_clips(store.path("human-clips")):
        quiet = (clip.pcm() // 10).astype("<i2").tobytes()
        assert contains_speech(silero, clip.pcm().tobytes()), clip.name
        assert contains_speech(silero, bytes(5 * 32_000) + quiet), clip.name
