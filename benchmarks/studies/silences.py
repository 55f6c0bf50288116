"""Silences of a recording, for the studies of endpointing: where speech ends and resumes, and after which words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from deployments.engines.speech_in.silero import STATE_SIZE, Silero
from rejoinder.core.audio.pcm import VAD_WINDOW, Samples, pcm16_to_float
from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.settings import SpeechSettings
from rejoinder.core.turns.speech_detector import SpeechEvent, SpeechState, step


def edges(vad: Silero, settings: SpeechSettings, pcm: npt.NDArray[np.int16]) -> Iterator[SpeechEvent]:
    """Yield the starts, tentative ends and resumptions of speech that are detected in 16 kHz audio, in order."""
    state: Samples = np.zeros((1, STATE_SIZE), np.float32)
    speech = SpeechState()
    for end in range(VAD_WINDOW, pcm.size + 1, VAD_WINDOW):
        window = pcm16_to_float(pcm[end - VAD_WINDOW : end].tobytes())[np.newaxis]
        probabilities, state = vad.step(window, state)
        power = float(np.square(window).mean())
        speech, events = step(
            speech, settings=settings, probability=float(probabilities[0]), window_end=end, power=power
        )
        yield from events


def sentence_over(text: str, transcript: str) -> bool:
    """Return True if the transcript, a beginning of `text`, reaches the end of one of its sentences.

    The end of the transcript is located in `text` by the least edit distance.
    """
    spelled = [(word, part) for word in text.split() for part in words(word)]
    distances = list(range(len(spelled) + 1))
    for count, word in enumerate(words(transcript), start=1):
        before, distances = distances, [count]
        for i, (_, part) in enumerate(spelled, start=1):
            distances.append(min(before[i] + 1, distances[i - 1] + 1, before[i - 1] + (word != part)))
    reached = min(range(len(distances)), key=lambda i: (distances[i], -i))
    return reached == len(spelled) or (reached > 0 and spelled[reached - 1][0].rstrip("\"')").endswith((".", "?", "!")))
