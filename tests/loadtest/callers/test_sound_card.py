"""Tests of the sound card: its playback buffer, and PortAudio's streams on ALSA's null device."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.callers.sound_card import FRAME_SAMPLES, QUEUED_FRAMES, PlaybackBuffer, PortAudioCard

MISSING_DEVICE = "pcm.!default { type hw card 31 }\nctl.!default { type hw card 31 }\n"
NULL_DEVICE = "pcm.!default { type null }\nctl.!default { type null }\n"
SESSION = """
import asyncio
from loadtest.callers.sound_card import open_sound_card

async def main():
    with open_sound_card() as card:
        card.play(bytes(96_000))
        frames = [await asyncio.wait_for(card.record(), 5) for _ in range(5)]
    print(card.output_latency_s > 0, {len(frame) for frame in frames})

asyncio.run(main())
"""


def run(tmp_path: Path, devices: str) -> subprocess.CompletedProcess[str]:
    """Run SESSION in a process whose ALSA configuration is `devices`."""
    config = tmp_path / "asound.conf"
    config.write_text(devices)
    environment = {"ALSA_CONFIG_PATH": str(config), "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run([sys.executable, "-c", SESSION], env=environment, capture_output=True, text=True, timeout=60)


def test_playback_is_in_order_and_padded_with_silence() -> None:
    """Reads return the queued bytes in order. Bytes that are missing are zero. Cleared audio is not returned."""
    buffer = PlaybackBuffer()
    buffer.put(b"\1\2\3")
    buffer.put(b"\4")
    assert buffer.read(2) == b"\1\2"
    assert buffer.read(4) == b"\3\4\0\0"
    buffer.put(b"\5\6")
    buffer.clear()
    assert buffer.read(2) == b"\0\0"


async def test_a_full_microphone_queue_drops_the_oldest_frame() -> None:
    """If nobody reads the microphone, only the newest 5 s are kept."""
    card = PortAudioCard()
    for number in range(QUEUED_FRAMES + 1):
        card.on_input(number.to_bytes(2, "little"))
    await asyncio.sleep(0)
    assert await card.record() == (1).to_bytes(2, "little")


@pytest.mark.sound
def test_a_sound_device_records_and_plays(tmp_path: Path) -> None:
    """On ALSA's null device both streams open, report a latency, and frames of 20 ms arrive."""
    finished = run(tmp_path, NULL_DEVICE)
    assert finished.stdout.split() == ["True", f"{{{2 * FRAME_SAMPLES}}}"], finished.stderr


@pytest.mark.sound
def test_a_machine_without_sound_is_told_what_to_do(tmp_path: Path) -> None:
    """Without any sound device the error names the devices and the option to type instead."""
    finished = run(tmp_path, MISSING_DEVICE)
    assert finished.returncode != 0
    assert "no microphone or loudspeaker can be opened" in finished.stderr
    assert "--typed --mute" in finished.stderr
