"""Subtitles of a recording as SubRip (srt) and WebVTT (vtt) files."""

from __future__ import annotations

from collections.abc import Sequence

from rejoinder.core.http_api.transcription import TimedText


def srt(cues: Sequence[TimedText]) -> str:
    """Return a SubRip file."""
    blocks = (
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, 1)
    )
    return "".join(blocks)


def vtt(cues: Sequence[TimedText]) -> str:
    """Return a WebVTT file (https://www.w3.org/TR/webvtt1/)."""
    blocks = (f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{_escaped(cue.text)}\n\n" for cue in cues)
    return "WEBVTT\n\n" + "".join(blocks)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, mark: str) -> str:
    """Return a time as HH:MM:SS and milliseconds after `mark`."""
    total_ms = round(seconds * 1000)
    minutes, ms = divmod(total_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{mark}{ms % 1000:03}"
