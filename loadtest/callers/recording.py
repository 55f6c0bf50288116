"""Recording of a scripted conversation: one WAV file for each reply, and the whole conversation in stereo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtest.callers.scripted_caller import ScriptedCaller
from loadtest.scenario.clips import write_wave
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import ConfigError


def save(caller: ScriptedCaller, directory: Path) -> list[Path]:
    """Write the recording of a conversation as WAV files and return their paths.

    `reply-01.wav`, `reply-02.wav` and so on contain the audio of each reply, without audio that was flushed.
    `conversation.wav` has the caller in the left channel and the played replies in the right one, on the client's
    timeline. `directory` is created if it does not exist.

    Raises:
        ConfigError: The directory cannot be written.
    """
    tracks = {f"reply-{number:02d}.wav": reply.playback.received for number, reply in enumerate(caller.replies, 1)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, pcm in tracks.items():
            write_wave(directory / name, pcm)
        write_wave(directory / "conversation.wav", _stereo(caller), channels=2)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error}).", "Name another directory.", field=str(directory)) from None
    return [*(directory / name for name in tracks), directory / "conversation.wav"]


def _stereo(caller: ScriptedCaller) -> bytes:
    microphone_track = np.frombuffer(bytes(caller.microphone.sent), "<i2")
    played = [
        (round((chunk.at - caller.microphone.began_at) * WIRE_RATE), np.frombuffer(chunk.pcm, "<i2"))
        for reply in caller.replies
        for chunk in reply.playback.heard()
    ]
    length = max([microphone_track.size, *(at + samples.size for at, samples in played)])
    stereo = np.zeros((length, 2), "<i2")
    stereo[: microphone_track.size, 0] = microphone_track
    for at, samples in played:
        stereo[at : at + samples.size, 1] = samples
    return stereo.tobytes()
