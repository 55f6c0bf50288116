"""Tests of the filter for hidden text: reasoning, tool syntax, special tokens and control characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.spoken.hidden import HiddenTextFilter, visible_text

CASES = [
    ("<think>Let me see: 5.</think>It is noon.", "It is noon."),
    ("<THINK>no</THINK>Yes.", "Yes."),
    ("It is <think>hm</think>noon.", "It is noon."),
    ("<think>never closed", ""),
    ("lost</think>Noon.", "lostNoon."),
    ('<tool_call>\n{"name": "x"}\n</tool_call>Done.', "Done."),
    ("<function=f>{}</function>Done.", "Done."),
    ('{"name": "f", "arguments": {"text": "a } \\" b"}} Done.', " Done."),
    ('Sure.\n{"name": "f"}\nDone.', "Sure.\n\nDone."),
    ('The set {"a": 1} is {small}.', 'The set {"a": 1} is {small}.'),
    ('[TOOL_CALLS] [{"name": "f"}]\nDone.', "Done."),
    ("<|im_start|>Hi<|im_end|>", "Hi"),
    ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.", "Hi."),
    ("Hi</s>", "Hi"),
    ("a < b and <b>bold</b> <thin", "a < b and <b>bold</b> <thin"),
    ("`x` [a](b) <", "`x` [a](b) <"),
    ("a\x00b\x07c\u200bd\ufeff\ud800", "abcd"),
    ("a\tb\nc", "a\tb\nc"),
]


@pytest.mark.parametrize(("text", "shown"), CASES)
def test_hidden_text_is_removed(text: str, shown: str) -> None:
    """Reasoning blocks, tool calls, special tokens and control characters are removed. Other text is unchanged."""
    assert visible_text(text) == shown


@given(
    st.sampled_from([text for text, _ in CASES]) | st.text('<>|/think{}"name:[]` \n', max_size=50), st.integers(1, 9)
)
def test_marks_may_be_split_over_pieces(text: str, size: int) -> None:
    """For pieces of any size, also if a tag such as "<think>" is split, the visible text is the same."""
    hidden = HiddenTextFilter()
    shown = "".join(hidden.push(text[at : at + size]) for at in range(0, len(text), size)) + hidden.flush()
    assert shown == visible_text(text)


def test_text_without_marks_is_not_held_back() -> None:
    """Each piece of plain text is returned at once. "<" is held back only while it may begin a tag."""
    hidden = HiddenTextFilter()
    assert hidden.push("It is noon.") == "It is noon."
    assert hidden.push(" a <") == " a "
    assert hidden.push(" b") == "< b"
