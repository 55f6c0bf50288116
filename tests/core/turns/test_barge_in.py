"""Tests of the classification of speech during a reply: addressed to the agent, backchannel, noise or echo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.measuring.wer import words
from rejoinder.core.settings.settings import BargeInSettings
from rejoinder.core.turns.barge_in import AgentSpeech, SpeechKind, classify_speech, is_unsure
from rejoinder.core.turns.echo_guard import is_echo

REPLY = "The next train to Reading leaves at ten past four from platform three, and it takes twenty minutes."
OVER = AgentSpeech(REPLY, interrupted=True, remaining_s=6.0)
AFTER = AgentSpeech(REPLY, interrupted=False, remaining_s=0.0)
SETTINGS = BargeInSettings()

VOCABULARY = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
vocabulary = st.lists(st.sampled_from(VOCABULARY), max_size=12)
reply_words = st.lists(st.text("abcdefgh", min_size=4, max_size=7), min_size=1, max_size=30)


def reading(text: str, agent: AgentSpeech = OVER, language: str = "en", **changes: object) -> SpeechKind:
    return classify_speech(text, agent, SETTINGS.model_copy(update=changes), language)


@pytest.mark.parametrize(
    "text", ["Which platform did you say?", "No.", "Mm-hm, but how much is it?", "Tuesday", "Stop."]
)
def test_words_are_addressed_to_the_agent(text: str) -> None:
    """An utterance with a word that is not a backchannel is addressed to the agent, even after backchannels."""
    assert reading(text) is SpeechKind.ADDRESSED


@pytest.mark.parametrize("text", ["Mm-hm.", "Yeah, okay.", "Uh-huh", "I see. Right."])
def test_backchannels_do_not_interrupt(text: str) -> None:
    """An utterance that has only backchannels ("mm-hm", "okay") is a backchannel, whatever their number."""
    assert reading(text) is SpeechKind.BACKCHANNEL


@pytest.mark.parametrize("text", ["M M M", "MMO.", "Mmm.", "Hmmmm", "M-hmm.", "Mm-hmm, mm-hmm.", "Uhh", "M M M, yeah."])
def test_a_hum_is_a_backchannel_however_it_is_written(text: str) -> None:
    """A sound with a closed mouth is a backchannel, whatever letters the recognizer finds for it."""
    assert reading(text) is SpeechKind.BACKCHANNEL


@pytest.mark.parametrize(("text", "language"), [("M M M", "de"), ("Um sechs", "de"), ("Mom", "en"), ("Hum it", "en")])
def test_a_hum_is_not_a_word(text: str, language: str) -> None:
    """A hum is no word in any language. "Um" is a word in German, and "mom" is one in English."""
    expected = SpeechKind.BACKCHANNEL if text == "M M M" else SpeechKind.ADDRESSED
    assert reading(text, language=language) is expected


@pytest.mark.parametrize(
    ("text", "logprob", "speech_ms", "unsure"),
    [
        ("I'm them.", -0.64, 480, True),
        ("Share.", -0.74, 360, True),
        ("Share.", -0.2, 360, False),
        ("Share.", -0.74, 900, False),
        ("Stop.", -0.96, 340, False),
        ("No.", -0.8, 300, False),
        ("You see my kids", -0.7, 500, False),
    ],
)
def test_short_words_that_the_recognizer_doubts_are_not_believed(
    text: str, logprob: float, speech_ms: float, unsure: bool
) -> None:
    """Up to two words in at most 0.6 s count as a sound if their mean log-probability is low.

    A stop word, a plain "no", and three or more words count as words.
    """
    assert is_unsure(text, logprob, speech_ms, SETTINGS, language="en") is unsure


def test_a_backchannel_at_the_end_of_a_reply_is_an_answer() -> None:
    """A backchannel in the last second of a reply, or after the reply, is addressed to the agent. Noise is not."""
    assert reading("Yeah.", AgentSpeech(REPLY, interrupted=True, remaining_s=0.9)) is SpeechKind.ADDRESSED
    assert reading("Yeah.", AFTER) is SpeechKind.ADDRESSED
    assert reading("", AgentSpeech(REPLY, interrupted=True, remaining_s=0.9)) is SpeechKind.NO_WORDS


@pytest.mark.parametrize("text", ["", "...", " - "])
def test_a_noise_has_no_words(text: str) -> None:
    """Empty text and punctuation, as recognizers write for noise, are classified as NO_WORDS."""
    assert reading(text) is SpeechKind.NO_WORDS


def test_min_words_sets_the_number_of_words() -> None:
    """With min_words=3, three words are addressed to the agent and two are not. A stop word alone always is.

    With min_words=0, any sound is addressed to the agent.
    """
    assert reading("Which one", min_words=3) is SpeechKind.NO_WORDS
    assert reading("Which one then", min_words=3) is SpeechKind.ADDRESSED
    assert reading("Wait", min_words=3) is SpeechKind.ADDRESSED
    assert reading("", min_words=0) is SpeechKind.ADDRESSED


def test_languages_have_lists_of_their_own() -> None:
    """Each language has its own list of backchannels, which the settings can replace. "Okay" is none in German."""
    assert reading("Okay", language="de") is SpeechKind.ADDRESSED
    assert reading("Genau", language="de", backchannels={"de": ("genau",)}) is SpeechKind.BACKCHANNEL


@pytest.mark.parametrize(
    "text",
    [
        "leaves at ten past four from platform",
        "to Reading leaves at 10 past four",
        "ding leaves at ten past fou",
        "reading",
    ],
)
def test_words_of_the_reply_are_an_echo(text: str) -> None:
    """A part of the reply's text is an echo, also if one word is misrecognized or the first and last words are cut.

    With echo_guard=False it is addressed to the agent.
    """
    assert reading(text) is SpeechKind.ECHO
    assert reading(text, AFTER) is SpeechKind.ECHO
    assert reading(text, echo_guard=False) is SpeechKind.ADDRESSED


@pytest.mark.parametrize(
    "text", ["Does it leave from platform nine or three?", "The minutes to four", "past ten leaves"]
)
def test_a_caller_may_use_words_of_the_reply(text: str) -> None:
    """Words of the reply in another order, far apart, or among other words are not an echo."""
    assert reading(text) is SpeechKind.ADDRESSED


@given(reply_words, st.data())
def test_every_part_of_the_reply_is_an_echo(spoken: list[str], data: st.DataObject) -> None:
    """Any consecutive words of the reply are an echo, also if one word of at least five is misrecognized."""
    start = data.draw(st.integers(0, len(spoken) - 1))
    part = spoken[start : data.draw(st.integers(start + 1, len(spoken)))]
    assert is_echo(part, spoken)
    if len(part) >= 5:
        part[data.draw(st.integers(1, len(part) - 2))] = "zzzz"
        assert is_echo(part, spoken)


@given(vocabulary, vocabulary, vocabulary)
def test_words_that_the_agent_did_not_say_are_not_an_echo(
    spoken: list[str], before: list[str], after: list[str]
) -> None:
    """An utterance is not an echo if at least a quarter of its words are not in the reply."""
    own = ["caller"] * (1 + (len(before) + len(after)) // 3)
    assert not is_echo(before + own + after, spoken)


@given(vocabulary, st.sampled_from(SETTINGS.stop_words["en"]), vocabulary, st.integers(0, 10))
def test_a_stop_word_always_passes(before: list[str], stop: str, after: list[str], needed: int) -> None:
    """A stop word makes any utterance addressed to the agent, whatever the other words and `min_words`."""
    text = " ".join([*before, stop, *after])
    agent = AgentSpeech(text, interrupted=True, remaining_s=9.0)
    assert reading(text, agent, min_words=needed) is SpeechKind.ADDRESSED


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_classified(text: str, spoken: str) -> None:
    """Any text is classified without an error. During a reply, text without words is always NO_WORDS."""
    result = reading(text, AgentSpeech(spoken, interrupted=True, remaining_s=9.0))
    assert result in SpeechKind
    assert words(text) or result is SpeechKind.NO_WORDS
