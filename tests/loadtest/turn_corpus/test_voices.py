"""Tests of the texts that synthetic voices get, and of the check which voices are installed."""

from __future__ import annotations

import pytest

from loadtest.turn_corpus.voices import VOICES, missing_voices, pronounceable, speak
from rejoinder.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "said"), [("Mm-hmm.", "umhum."), ("Hmm.", "hum."), ("It's a hammer, hmm?", "It's a hammer, hum?")]
)
def test_sounds_that_are_not_words_are_spelled_as_words(text: str, said: str) -> None:
    """Sounds such as "Mm-hmm" are written as words ("umhum"), because a synthesizer would spell them.

    Other words stay as they are.
    """
    assert pronounceable(text) == said


def test_a_machine_without_the_programs_has_none_of_their_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the programs flite, espeak-ng and festival, all their voices are missing.

    Using one of these voices raises ConfigError that names the package to install.
    """
    monkeypatch.setattr("shutil.which", lambda _: None)
    gone = {voice.name for voice in missing_voices()}
    assert gone >= {voice.name for voice in VOICES if voice.program != "piper"}
    with pytest.raises(ConfigError) as refused:
        speak("festival-ked", "Hello.")
    assert "festvox-kdlpc16k" in str(refused.value)
