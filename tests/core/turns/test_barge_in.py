"""What speech over a reply was: words, a backchannel, a noise, or our own echo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.settings import BargeInSettings
from rejoinder.core.turns.barge_in import AgentSpeech, SpeechReading, read
from rejoinder.core.turns.echo_guard import is_echo

REPLY = "The next train to Reading leaves at ten past four from platform three, and it takes twenty minutes."
OVER = AgentSpeech(REPLY, over=True, left_s=6.0)
BEHIND = AgentSpeech(REPLY, over=False, left_s=0.0)
SETTINGS = BargeInSettings()

VOCABULARY = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
vocabulary = st.lists(st.sampled_from(VOCABULARY), max_size=12)
reply_words = st.lists(st.text("abcdefgh", min_size=4, max_size=7), min_size=1, max_size=30)


def reading(text: str, floor: AgentSpeech = OVER, language: str = "en", **changes: object) -> SpeechReading:
    return read(text, floor, SETTINGS.model_copy(update=changes), language)


@pytest.mark.parametrize(
    "text", ["Which platform did you say?", "No.", "Mm-hm, but how much is it?", "Tuesday", "Stop."]
)
def test_words_are_meant(text: str) -> None:
    """One word that is no backchannel is enough, also behind one."""
    assert reading(text) is SpeechReading.MEANT


@pytest.mark.parametrize("text", ["Mm-hm.", "Yeah, okay.", "Uh-huh", "I see. Right."])
def test_a_listener_who_agrees_does_not_interrupt(text: str) -> None:
    """However many backchannels there are."""
    assert reading(text) is SpeechReading.BACKCHANNEL


def test_an_agreement_at_the_end_of_a_reply_is_an_answer() -> None:
    """ "Yeah" in the last second of a question answers it; behind the reply it always does."""
    assert reading("Yeah.", AgentSpeech(REPLY, over=True, left_s=0.9)) is SpeechReading.MEANT
    assert reading("Yeah.", BEHIND) is SpeechReading.MEANT
    assert reading("", AgentSpeech(REPLY, over=True, left_s=0.9)) is SpeechReading.NO_WORDS


@pytest.mark.parametrize("text", ["", "...", " - "])
def test_a_noise_has_no_words(text: str) -> None:
    """Also what a recognizer writes of one."""
    assert reading(text) is SpeechReading.NO_WORDS


def test_more_words_can_be_asked_for() -> None:
    """With min_words 3 two are too few, a stop word is enough, and 0 takes everything."""
    assert reading("Which one", min_words=3) is SpeechReading.NO_WORDS
    assert reading("Which one then", min_words=3) is SpeechReading.MEANT
    assert reading("Wait", min_words=3) is SpeechReading.MEANT
    assert reading("", min_words=0) is SpeechReading.MEANT


def test_languages_have_lists_of_their_own() -> None:
    """English backchannels are words in German, unless the operator says otherwise."""
    assert reading("Okay", language="de") is SpeechReading.MEANT
    assert reading("Genau", language="de", backchannels={"de": ("genau",)}) is SpeechReading.BACKCHANNEL


@pytest.mark.parametrize(
    "text",
    [
        "leaves at ten past four from platform",
        "to Reading leaves at 10 past four",
        "ding leaves at ten past fou",
        "reading",
    ],
)
def test_our_own_words_are_an_echo(text: str) -> None:
    """A run of them, with one misheard, or with the first and last cut in half."""
    assert reading(text) is SpeechReading.ECHO
    assert reading(text, BEHIND) is SpeechReading.ECHO
    assert reading(text, echo_guard=False) is SpeechReading.MEANT


@pytest.mark.parametrize(
    "text", ["Does it leave from platform nine or three?", "The minutes to four", "past ten leaves"]
)
def test_a_caller_may_use_our_words(text: str) -> None:
    """In another order, far apart, or among others, they are the caller's."""
    assert reading(text) is SpeechReading.MEANT


@given(reply_words, st.data())
def test_every_run_of_our_words_is_an_echo(spoken: list[str], data: st.DataObject) -> None:
    """Whatever part of the reply the microphone caught, and with one word in five misheard."""
    start = data.draw(st.integers(0, len(spoken) - 1))
    heard = spoken[start : data.draw(st.integers(start + 1, len(spoken)))]
    assert is_echo(heard, spoken)
    if len(heard) >= 5:
        heard[data.draw(st.integers(1, len(heard) - 2))] = "zzzz"
        assert is_echo(heard, spoken)


@given(vocabulary, vocabulary, vocabulary)
def test_words_that_we_did_not_say_are_no_echo(spoken: list[str], before: list[str], behind: list[str]) -> None:
    """An utterance of which a quarter is the caller's own is the caller's."""
    own = ["caller"] * (1 + (len(before) + len(behind)) // 3)
    assert not is_echo(before + own + behind, spoken)


@given(vocabulary, st.sampled_from(SETTINGS.stop_words["en"]), vocabulary, st.integers(0, 10))
def test_a_stop_word_always_passes(before: list[str], stop: str, behind: list[str], needed: int) -> None:
    """Among any words, of ours too, and however many are needed."""
    text = " ".join([*before, stop, *behind])
    floor = AgentSpeech(text, over=True, left_s=9.0)
    assert reading(text, floor, min_words=needed) is SpeechReading.MEANT


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_has_a_reading(text: str, spoken: str) -> None:
    """Nothing that a recognizer writes breaks it; and what has no words is never meant over a reply."""
    found = reading(text, AgentSpeech(spoken, over=True, left_s=9.0))
    assert found in SpeechReading
    assert words(text) or found is SpeechReading.NO_WORDS
