"""Where to cut long speech into windows that a recognizer can transcribe.

Recognizers were trained on at most 30 s of audio, and Whisper sometimes drops the end of a full window. Speech of more
than SPLIT_S (18 s) is therefore transcribed in windows of 12 to 17 s. The cut is at the quietest place. One window ends
shortly after the cut, and the next window begins shortly before it, so both contain the words around the cut in full.
`transcript_windows.merge` joins the two transcripts. If the cut is in a pause of PAUSE_S, the windows do not overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, pcm16_to_float

SPLIT_S = 18.0
"""Seconds of audio from which a window is cut off. Moonshine takes 1.7 s for 20 s of speech on one core and 2.8 s for
29 s, and Whisper dropped the last 5 s of a window of 29 s."""

SPLIT_SAMPLES = round(SPLIT_S * STT_RATE)

CUT_FROM_S, CUT_TO_S = 12.0, 16.0
"""A window is cut between these times, which usually contain a pause between two words."""

OVERLAP_S = 1.5
"""Overlap of two windows that are cut within speech: four to six words."""

PAUSE_S = 1.0
"""Shortest pause in which windows are cut without an overlap. Within a phrase, a recognizer needs the words before: cut
in a pause of 0.4 s, "the table had a scratch" became "the table. Hannah scratched"."""

GAP_S = 0.06
"""Length of the quietest place between two words."""

PAUSE_DB = 25.0
"""A pause is at least this much quieter than the loud parts of the window, in dB."""

_FRAME_S = 0.02
_FRAME = round(_FRAME_S * STT_RATE)
_FLOOR = 1e-10


@dataclass(frozen=True, slots=True)
class WindowCut:
    """End of one window and start of the next window. Sample indices count from the start of the first window.

    Attributes:
        end: Index after the last sample of the first window.
        next_start: Index of the first sample of the next window. Less than `end` if the windows overlap.
    """

    end: int
    next_start: int

    @property
    def overlaps(self) -> bool:
        """True if the two windows share audio, so the same words may be in both transcripts."""
        return self.next_start < self.end


def cut_window(pcm: bytes) -> WindowCut | None:
    """Return where to cut the first window off long speech; None if the speech is shorter than SPLIT_S.

    Args:
        pcm: The speech, as 16-bit PCM at 16 kHz.
    """
    if len(pcm) < SPLIT_SAMPLES * SAMPLE_BYTES:
        return None
    first = round(CUT_FROM_S * STT_RATE)
    samples = pcm16_to_float(pcm[first * SAMPLE_BYTES : round(CUT_TO_S * STT_RATE) * SAMPLE_BYTES])
    power = np.square(samples.reshape(-1, _FRAME)).mean(axis=1)
    at, mean = _quietest(power, PAUSE_S)
    if mean <= np.percentile(power, 90) * 10 ** (-PAUSE_DB / 10) + _FLOOR:
        middle = first + at
        return WindowCut(middle, middle)
    at, _ = _quietest(power, GAP_S)
    half = round(OVERLAP_S * STT_RATE / 2)
    return WindowCut(first + at + half, first + at - half)


def _quietest(power: np.ndarray[tuple[int], np.dtype[np.float32]], seconds: float) -> tuple[int, float]:
    """Find the stretch of audio whose loudest frame is quietest.

    Args:
        power: Mean square of the samples of each 20 ms frame.
        seconds: Length of the stretch.

    Returns:
        The index of the sample in the middle of the stretch, and the power of the stretch's loudest frame.
    """
    frames = round(seconds / _FRAME_S)
    loudest = np.lib.stride_tricks.sliding_window_view(power, frames).max(axis=1)
    start = int(loudest.argmin())
    return round((start + frames / 2) * _FRAME), float(loudest[start])
