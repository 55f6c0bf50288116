"""Probability that a message ends, read from a language model's distribution of the next token.

A chat model that has read "My phone number is" expects a digit. After "What is the capital of France" it expects the
end of the message. The probability of the end is the sum over the tokens that end a message or its last sentence:
control tokens (the end-of-turn token), full stops, question and exclamation marks, and line breaks. The marks belong to
it because people speak no punctuation: the model puts "?" before the end-of-turn token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

TOP_TOKENS = 64
"""Number of most likely tokens that are read. The others have together less than a few percent of the probability."""

_MARKS = (".", "?", "!")


def end_probability(top: Sequence[Mapping[str, Any]]) -> float:
    """Return the probability that the message, or its last sentence, ends before the next token.

    Args:
        top: The most likely next tokens in llama.cpp's form. Each has its text (`token`), its bytes (`bytes`, empty for
            a control token) and its log-probability (`logprob`, natural logarithm).
    """
    ends = (math.exp(entry["logprob"]) for entry in top if _ends(str(entry["token"]), entry.get("bytes")))
    return min(1.0, sum(ends))


def _ends(text: str, raw: object) -> bool:
    """Return True if a token ends a message or a sentence. `raw` is the list of its bytes."""
    if not text:
        return not raw
    stripped = text.strip(" \t")
    if stripped.startswith("\n"):
        return True
    # "..." continues the sentence, and ".5" is a number.
    return stripped.startswith(_MARKS) and not stripped.startswith("..") and not stripped[1:2].isalnum()
