"""Texts for the synthetic voices, and which voices a machine has."""

from __future__ import annotations

import pytest

from loadtest.turn_corpus.voices import VOICES, missing_voices, pronounceable, speak
from rejoinder.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "said"), [("Mm-hmm.", "umhum."), ("Hmm.", "hum."), ("It's a hammer, hmm?", "It's a hammer, hum?")]
)
def test_sounds_that_are_not_words_are_spelled_as_words(text: str, said: str) -> None:
    """A synthesizer gets "umhum" instead of "Mm-hmm", which it would spell; other words stay as they are."""
    assert pronounceable(text) == said


def test_a_machine_without_the_programs_has_none_of_their_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flite, espeak-ng and festival, all their voices are missing, and using one says what to install."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    gone = {voice.name for voice in missing_voices()}
    assert gone >= {voice.name for voice in VOICES if voice.program != "piper"}
    with pytest.raises(ConfigError) as refused:
        speak("festival-ked", "Hello.")
    assert "festvox-kdlpc16k" in str(refused.value)
