"""Tests of the answer cache's text rules: which questions are the same, personal, time-dependent or refer back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.question_matching import (
    content_words,
    normalize,
    personal,
    same_question,
    stands_alone,
    time_dependent,
)

WORDS = st.lists(
    st.sampled_from(["do", "you", "ship", "to", "from", "Canada", "not", "open", "close", "10", "3.5", "-3"])
    | st.sampled_from(["the", "a", "shoes", "don't", "what", "when"]),
    max_size=8,
)


@given(st.text(max_size=80))
def test_the_normal_form_is_stable(text: str) -> None:
    """Normalizing a text twice gives the same as once, and surrounding space is ignored."""
    once = normalize(text)
    assert normalize(once) == once
    assert normalize(f"  {text}\t") == once


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3-2?", "What is 3+2?"),
        ("Is it -5?", "Is it 5?"),
        ("Is it 3.5?", "Is it 35?"),
        ("Is it .5?", "Is it 5?"),
    ],
)
def test_signs_of_numbers_stay(one: str, other: str) -> None:
    """`normalize` keeps signs and points in numbers, so different calculations are different questions."""
    assert normalize(one) != normalize(other)


def test_punctuation_around_words_does_not_count() -> None:
    """`normalize` ignores case and punctuation around words, because transcripts of equal words differ in them."""
    assert normalize("Hello, what are your opening hours?") == normalize("hello what are your opening hours")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What time do you open?", "When do you open?"),
        ("Please tell me how photosynthesis works.", "How does photosynthesis work?"),
        ("I would like to know when you open.", "When do you open?"),
        ("Which languages are supported?", "What languages do you support?"),
        ("Do I have to book a table?", "Must I book a table?"),
    ],
)
def test_other_ways_to_ask_are_the_same(one: str, other: str) -> None:
    """Two questions are the same if they differ only in polite phrases, articles, auxiliary verbs and word endings."""
    assert same_question(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Do you ship to Canada?", "Do you ship from Canada?"),
        ("Are children allowed?", "Aren't children allowed?"),
        ("Why do cats chase dogs?", "Why do dogs chase cats?"),
        ("Does it cover 10 users?", "Does it cover 100 users?"),
        ("Did you deliver on Monday?", "Do you deliver on Monday?"),
        ("When do you open?", "Where do you open?"),
        ("Can I park with a permit?", "Can I park without a permit?"),
        ("What is it?", "What are you?"),
    ],
)
def test_a_word_that_matters_makes_another_question(one: str, other: str) -> None:
    """Questions that differ in a negation, preposition, word order, number, tense or question word are not the same.

    Questions with fewer than two content words are never the same.
    """
    assert not same_question(one, other)


@given(WORDS, WORDS)
def test_sameness_is_an_equivalence_of_content(one: list[str], other: list[str]) -> None:
    """`same_question` does not depend on the order of its arguments.

    A question is the same as itself exactly if it has at least two content words.
    """
    first, second = " ".join(one), " ".join(other)
    assert same_question(first, second) == same_question(second, first)
    assert same_question(first, first) == (len(content_words(first)) >= 2)


@given(WORDS, st.sampled_from(["not", "10", "Canada", "from", "without"]))
def test_one_more_word_of_content_is_another_question(words: list[str], extra: str) -> None:
    """A question with one more content word is not the same question."""
    text = " ".join(words)
    assert not same_question(text, f"{text} {extra}")


@pytest.mark.parametrize(
    "text",
    [
        "What is in my basket?",
        "Do I have an appointment?",
        "I'm late.",
        "Send it to us.",
        "This is Anna.",
        "Is order 48213 ready?",
        "Four eight two one, is it ready?",
        "Write to anna@example.org.",
    ],
)
def test_questions_about_the_caller_are_personal(text: str) -> None:
    """First person, introductions, addresses and identifying numbers make a question personal."""
    assert personal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Can I pay by card?",
        "Tell me about parking.",
        "How many rooms are there?",
        "Do you have two lifts?",
        "Can we park?",
    ],
)
def test_general_questions_are_not_personal(text: str) -> None:
    """ "Can I" and "tell me" do not make a question personal, and neither do small numbers."""
    assert not personal(text)


@pytest.mark.parametrize(
    "text",
    [
        "What time is it?",
        "How is the weather?",
        "Are you open today?",
        "What is the price of a ticket?",
        "How much is a ticket?",
        "Are you open this week?",
        "Is the train delayed?",
    ],
)
def test_questions_about_the_present_are_time_dependent(text: str) -> None:
    """Clock, weather, prices and "this week" make a question time-dependent."""
    assert time_dependent(text)


@pytest.mark.parametrize("text", ["What time do you open?", "Are you open on Sundays?", "Who wrote Hamlet?"])
def test_lasting_facts_are_not_time_dependent(text: str) -> None:
    """Opening hours and historical facts are not time-dependent."""
    assert not time_dependent(text)


@pytest.mark.parametrize(
    "text",
    ["And in Munich?", "What about the other store?", "How much does that one hold?", "Yes.", "Is it open at noon?"],
)
def test_questions_that_refer_back_do_not_stand_alone(text: str) -> None:
    """A text does not stand alone if a pronoun, a missing verb or an initial "and" refers to something said before."""
    assert not stands_alone(text)
    assert stands_alone("Where is the main entrance?")
