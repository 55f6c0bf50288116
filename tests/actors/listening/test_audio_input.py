"""Test of a session's audio input with noise suppression."""

from __future__ import annotations

import numpy as np

from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


class Gate:
    """Noise suppressor that replaces the first `after` audio messages with silence and passes the others."""

    def __init__(self, after: int) -> None:
        self._left = after

    def clean(self, pcm: bytes) -> bytes:
        self._left -= 1
        return pcm if self._left < 0 else bytes(len(pcm))


@virtual
async def test_suppressed_audio_reaches_no_stage() -> None:
    """Audio that the noise suppressor silences reaches neither voice activity detection nor speech-to-text, and each
    session has its own suppressor.
    """
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(after=50))
        return made[-1]

    play = Play(suppressor=make)
    async with play.open() as host:
        for key in ("one", "two"):
            async with host.converse(key, lambda _: None, "rejoinder"):
                pass
    assert len({id(gate) for gate in made}) == 2
    async with play.call() as caller:
        await caller.speak(2.0)
        await caller.listen("response.done")
    started = caller.of("input_audio_buffer.speech_started")[0]
    assert 650 <= started["audio_start_ms"] <= 750
    loud = np.abs(np.frombuffer(play.stt.jobs[0].pcm, "<i2")) > 1000
    assert not loud[:4000].any()
    assert loud.any()
