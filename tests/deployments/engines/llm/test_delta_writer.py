"""`DeltaWriter` sends the first text at once and combines later tokens into fewer deltas."""

from __future__ import annotations

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.engines.llm.delta_writer import DeltaWriter

USAGE = LlmUsage(prompt_tokens=1, completion_tokens=3)
NEVER_DUE_S = 3600.0


def write(texts: list[str], coalesce_s: float) -> tuple[list[TokenDelta], TokenDelta]:
    """Write one token per text. Return the deltas sent meanwhile, and the last delta, which ends the answer."""
    sent: list[TokenDelta] = []
    writer = DeltaWriter(sent.append, coalesce_s)
    for text in texts:
        writer.write(text)
    return sent, writer.last("stop", USAGE)


def test_the_first_token_is_sent_at_once_and_the_rest_coalesced() -> None:
    """Of three tokens within `coalesce_s`, the first is sent at once. The last delta contains the two others."""
    sent, last = write(["a", "b", "c"], NEVER_DUE_S)
    assert sent == [TokenDelta("a", 1)]
    assert last == TokenDelta("bc", 2, "stop", USAGE)


def test_without_a_window_every_token_is_a_delta() -> None:
    """With `coalesce_s` 0, every token is sent at once."""
    sent, last = write(["a", "b"], 0.0)
    assert [delta.text for delta in sent] == ["a", "b"]
    assert last == TokenDelta("", 0, "stop", USAGE)


def test_a_token_without_text_is_sent_with_the_next_text() -> None:
    """A token without text (a part of a character) is not sent alone, but counted in the next delta with text."""
    sent, _ = write(["", "a"], 0.0)
    assert sent == [TokenDelta("a", 2)]


def test_several_tokens_may_share_one_text() -> None:
    """If one write has the text of several tokens, the delta counts all of them."""
    sent: list[TokenDelta] = []
    writer = DeltaWriter(sent.append, 0.0)
    writer.write("ab", tokens=2)
    assert sent == [TokenDelta("ab", 2)]
    assert writer.tokens == 2


def test_stop_can_be_read_by_the_engine() -> None:
    """After `stop()`, `stopped` is True, so the engine's callback can end the generation."""
    writer = DeltaWriter(lambda delta: None, 0.0)
    assert not writer.stopped
    writer.stop()
    assert writer.stopped
