"""Tests of the probability that a message ends, read from a language model's most likely next tokens."""

from __future__ import annotations

import math

import pytest

from deployments.engines.llm.message_end import end_probability


def entry(token: str, probability: float, raw: bytes | None = None) -> dict[str, object]:
    """Return a next token with its probability in llama.cpp's form.

    `raw` are its bytes if they are not those of the text.
    """
    return {"token": token, "bytes": list(token.encode() if raw is None else raw), "logprob": math.log(probability)}


@pytest.mark.parametrize("token", ["", ".", "?", "!", " ?", "\n", ".\n"])
def test_tokens_that_end_a_message_count(token: str) -> None:
    """The end-of-turn token (whose text is empty), sentence punctuation and a line break end the message."""
    assert end_probability([entry(token, 0.4), entry(" and", 0.6)]) == pytest.approx(0.4)


@pytest.mark.parametrize("token", [" ", ",", "...", "..", ".5", " five", "-"])
def test_tokens_that_continue_a_message_do_not_count(token: str) -> None:
    """Commas, an ellipsis, the beginning of a decimal, words and white space continue the message."""
    assert end_probability([entry(token, 0.9)]) == 0.0


def test_a_token_that_is_part_of_a_character_is_not_the_end() -> None:
    """A token with bytes but without text is part of a multi-byte character. It does not end the message."""
    assert end_probability([entry("", 0.9, raw=b"\xf0")]) == 0.0


def test_the_ends_are_added() -> None:
    """`end_probability` is the sum of the probabilities of all tokens that end the message."""
    assert end_probability([entry("?", 0.5), entry("", 0.3), entry(" or", 0.2)]) == pytest.approx(0.8)
