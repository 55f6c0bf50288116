"""Tests of the WAV recordings that are saved of a scripted conversation."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from loadtest.callers.recording import save
from loadtest.callers.scripted_caller import LEAD_IN_S, ScriptedLine
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.errors import ConfigError
from tests.loadtest.callers.scene import Scene, clip, report, tone


def _scene() -> Scene:
    """Return a finished conversation: 1 s of speech, and a reply of 0.5 s that starts 0.4 s after the speech."""
    scene = Scene(ScriptedLine(clip(seconds=1.0)))
    scene.hears(0.7, "i1")
    scene.commits(LEAD_IN_S + 1.2, "i1", "hello")
    scene.replies(LEAD_IN_S + 1.4, "r1", "Good day.", tone(0.5))
    scene.done(LEAD_IN_S + 1.5, "r1", report("i1", 1500))
    scene.run(60)
    return scene


def test_the_conversation_is_saved_on_the_client_s_timeline(tmp_path: Path) -> None:
    """In conversation.wav, the caller is in the left channel and the replies are in the right channel.

    Both are at the times at which they were spoken and played. Each reply also has its own file.
    """
    written = save(_scene().dialogue, tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["reply-01.wav", "conversation.wav"]
    with wave.open(str(written[1])) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, WIRE_RATE)
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    left, right = (np.flatnonzero(stereo[:, side]) / WIRE_RATE for side in (0, 1))
    assert (left[0], left[-1]) == pytest.approx((LEAD_IN_S, LEAD_IN_S + 1.0), abs=0.001)
    assert (right[0], right[-1]) == pytest.approx((LEAD_IN_S + 1.4, LEAD_IN_S + 1.9), abs=0.001)
    with wave.open(str(written[0])) as file:
        assert file.readframes(file.getnframes()) == tone(0.5)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """If the directory for the recordings cannot be created, ConfigError names it."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        save(_scene().dialogue, tmp_path / "taken")
    assert caught.value.field == str(tmp_path / "taken")
