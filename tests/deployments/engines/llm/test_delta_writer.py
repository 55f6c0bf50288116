"""Token deltas: what is sent when, without a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.engines.llm.delta_writer import DeltaWriter, TokenWriter

USAGE = LlmUsage(prompt_tokens=1, completion_tokens=3)
END = 0
NEVER_DUE_S = 3600.0


@dataclass(frozen=True)
class Step:
    token_id: int


@dataclass
class Letters:
    """Token n is the n-th letter; 99 is the first half of a character."""

    ended: list[int] = field(default_factory=list)

    def text_of(self, token_id: int) -> str:
        return "" if token_id == 99 else chr(ord("a") + token_id - 1)

    def ends(self, token_id: int) -> bool:
        return token_id == END


def write(tokens: list[int], coalesce_s: float) -> tuple[list[TokenDelta], TokenDelta]:
    """The deltas, and the last one."""
    sent: list[TokenDelta] = []
    deltas = DeltaWriter(sent.append, coalesce_s)
    writer = TokenWriter(Letters(), deltas)
    for token in tokens:
        if writer.on_token(Step(token)):
            break
    return sent, deltas.last(writer.finish, USAGE)


def test_the_first_token_is_sent_at_once_and_the_rest_coalesced() -> None:
    """Within the window only the first delta leaves; the last carries everything that waited."""
    sent, last = write([1, 2, 3, END], NEVER_DUE_S)
    assert sent == [TokenDelta("a", 1)]
    assert last == TokenDelta("bc", 2, "stop", USAGE)


def test_without_a_window_every_token_is_a_delta() -> None:
    """A window of zero holds nothing back."""
    sent, last = write([1, 2, END], 0.0)
    assert [delta.text for delta in sent] == ["a", "b"]
    assert last == TokenDelta("", 0, "stop", USAGE)


def test_an_unfinished_character_waits_for_its_rest() -> None:
    """A token without text is counted with the one that completes it; an empty first delta is never sent."""
    sent, _ = write([99, 1], 0.0)
    assert sent == [TokenDelta("a", 2)]


def test_an_answer_without_end_token_ended_by_length() -> None:
    """The reason tells a finished answer from one cut at `max_tokens`."""
    _, last = write([1, 2], 0.0)
    assert last.finish == "length"


def test_stopping_ends_at_the_next_token() -> None:
    """After stop() the engine is told to stop, and the token it brought is neither counted nor sent."""
    sent: list[TokenDelta] = []
    deltas = DeltaWriter(sent.append, 0.0)
    writer = TokenWriter(Letters(), deltas)
    assert not writer.on_token(Step(1))
    deltas.stop()
    assert writer.on_token(Step(2))
    assert deltas.tokens == 1
    assert len(sent) == 1
