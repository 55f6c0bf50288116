"""The deltas of one answer, from the lines of a server's response. It does no I/O and reads no clock."""

from __future__ import annotations

from dataclasses import replace

from actors.stages.ports import Finish, LlmRequest, TokenDelta
from deployments.engines.llm.chat_events import ChatEvents
from rejoinder.core.errors import BackendError, BadResponse, StageTimeout
from rejoinder.core.reply.continuation import Continuation, ends_sentence
from rejoinder.core.reply.tools.written import begins_call

# Low estimate for English text. A server that cannot continue a prefix generates it again, so its limit of tokens is
# raised by the prefix's characters divided by this number.
CHARACTERS_PER_TOKEN = 3
# No tokenizer has longer tokens on average. A server that sends more characters ignores `max_tokens`.
MOST_CHARACTERS_PER_TOKEN = 32
# Maximum time in seconds for which a server may send lines without text, for example while a model thinks.
THINK_S = 30.0
# Minimum time in seconds between two deltas without text, which say that the request is alive.
ALIVE_EVERY_S = 0.25
# Minimum time in seconds from a server's first line to the first delta without text, if the model does not think.
GREETING_S = 2.0


class AnswerReader:
    """State of one answer. Call `read` with each line until it returns True, and `take` in between; then `last`.

    Attributes:
        text: New text that `take` has not returned yet.
    """

    def __init__(self, name: str, request: LlmRequest, continuation: Continuation) -> None:
        """Create a reader without text.

        Args:
            name: The engine's name, for error messages.
            request: The request that the response answers.
            continuation: Filter of the text, for a request with a prefix.
        """
        self.text = ""
        self._name = name
        self._events = ChatEvents(name)
        self._continuation = continuation
        self._offer = request.tools
        self._limit = request.max_tokens + len(request.prefix) // CHARACTERS_PER_TOKEN
        self._finish: Finish | None = None
        self._done = False
        self._received = ""
        self._total_tokens = self._tokens = 0
        self._began = False
        self._heard_at: float | None = None
        self._thinking = False
        self._due_at = 0.0
        self._alive_at: float | None = None

    @property
    def ended(self) -> bool:
        """True if the server has said that the answer ended. Only token counts may follow."""
        return self._done or self._finish is not None or self._events.finish is not None

    def read(self, line: str, now: float) -> bool:
        """Read a line. Return True if the response has ended, or nothing more of it is wanted.

        Args:
            line: The line, without its line break.
            now: Monotonic time in seconds.

        Raises:
            RejoinderError: The server reports an error (see `api_faults.fault_of`).
            StageTimeout: Within an answer, the server sent no text for THINK_S.
        """
        if (piece := self._events.line(line)) is None:
            return False
        self._thinking = piece.thinking
        new = self._continuation.push(piece.text)
        self.text += new
        self._received += piece.text
        self._tokens += bool(new)
        self._total_tokens += bool(piece.text)
        if piece.text or self._heard_at is None:
            self._heard_at = now
        elif now - self._heard_at > THINK_S:
            if self._received:
                raise StageTimeout(f"{self._name}: no text for {THINK_S:g} s.", stage="llm")
            self._finish = "length"
        limit = self._limit
        if self._offer.active and begins_call(self._received):  # some servers leave calls in the text
            limit += self._offer.call_tokens
        if self._total_tokens > limit or len(self._received) > limit * MOST_CHARACTERS_PER_TOKEN:
            self._finish = "length"
        self._done = piece.done
        return self._done or self._finish is not None

    def due(self, now: float, coalesce_s: float) -> TokenDelta | None:
        """Return the delta to send after a line, or None if none is due.

        New text is sent at most every `coalesce_s` seconds. Without new text, a delta without text is due every
        ALIVE_EVERY_S seconds. It counts as a first token in the race of hedged requests. Some servers send lines long
        before the model works on the request, so without text or thinking the delta is due only after GREETING_S.
        `now` is the monotonic time in seconds.
        """
        if self.text:
            if now < self._due_at:
                return None
            self._due_at = now + coalesce_s
            return self.take()
        quiet_s = ALIVE_EVERY_S if self._thinking or self._received else GREETING_S
        since = self._alive_at if self._alive_at is not None else self._heard_at
        thought_first = self._thinking and self._alive_at is None
        if since is None or (now - since < quiet_s and not thought_first):
            return None
        self._alive_at = now
        return TokenDelta("", 0)

    def take(self) -> TokenDelta:
        """Return the new text as a delta; without text if there is none."""
        continues = self._continuation.kept if self._continuation.restarted and not self._began else None
        delta = TokenDelta(self.text, self._tokens, continues=continues if self.text else None)
        self._began = self._began or bool(self.text)
        self.text, self._tokens = "", 0
        return delta

    def last(self) -> TokenDelta:
        """Return the last delta of the answer.

        Some servers close the stream without an end marker. Such an answer counts as complete if its text is empty,
        ends with a sentence, or continues an interrupted attempt and ends with the same words as that attempt.

        Raises:
            BadResponse: No line followed the protocol.
            BackendError: The response ended before the answer did.
        """
        if not self.ended:
            self._check_end()
        rest = self._continuation.end()
        self.text += rest
        self._tokens += bool(rest)
        delta = self.take()
        finish = self._finish or self._events.end()
        return replace(delta, finish=finish, usage=self._events.usage, calls=self._events.calls)

    def _check_end(self) -> None:
        if not self._events.understood:
            remedy = "Check llm.base_url and llm.model: the server may be of another kind."
            raise BadResponse(f"{self._name}: the response is not a stream of chat completions.", remedy, stage="llm")
        complete = not self._received or ends_sentence(self._received) or self._continuation.ends_alike
        if self._events.called:
            complete = self._events.calls_complete
        if not complete:
            raise BackendError(f"{self._name}: the stream ended before the answer did.", stage="llm")
