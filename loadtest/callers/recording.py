"""A conversation as sound: one WAV file a reply, and the whole of it in stereo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtest.callers.scripted_caller import ScriptedCaller
from loadtest.scenario.clips import write_wave
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import ConfigError


def save(dialogue: ScriptedCaller, directory: Path) -> list[Path]:
    """Write `reply-01.wav` and so on (all audio received) and `conversation.wav`: the caller left, what was heard of
    the replies right, on the client's timeline. Raises ConfigError if the directory cannot be written.
    """
    tracks = {f"reply-{number:02d}.wav": reply.playback.received for number, reply in enumerate(dialogue.replies, 1)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, pcm in tracks.items():
            write_wave(directory / name, pcm)
        write_wave(directory / "conversation.wav", _stereo(dialogue), channels=2)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error}).", "Name another directory.", field=str(directory)) from None
    return [*(directory / name for name in tracks), directory / "conversation.wav"]


def _stereo(dialogue: ScriptedCaller) -> bytes:
    caller = np.frombuffer(bytes(dialogue.microphone.sent), "<i2")
    sounds = [
        (round((chunk.at - dialogue.microphone.began_at) * WIRE_RATE), np.frombuffer(chunk.pcm, "<i2"))
        for reply in dialogue.replies
        for chunk in reply.playback.heard()
    ]
    length = max([caller.size, *(at + samples.size for at, samples in sounds)])
    both = np.zeros((length, 2), "<i2")
    both[: caller.size, 0] = caller
    for at, samples in sounds:
        both[at : at + samples.size, 1] = samples
    return both.tobytes()
