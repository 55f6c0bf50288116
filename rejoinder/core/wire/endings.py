"""How a reply ends: its status on the wire, and the sentence that the caller hears if there was no answer.

A caller must never be left in silence, and a client must be able to tell whether there was an answer. A reply without
anything audible therefore ends with a short prepared sentence, and with a status that names the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rejoinder.core.errors import BackendError, CallerError, ConfigError, RejoinderError
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseStatus


class Sentence(Enum):
    """Sentence that the caller hears at the end of a reply without an answer. The texts are settings.

    NONE: no sentence, because there was an answer. NO_ANSWER: the model gave no answer. DECLINED: a content filter
    stopped the answer.
    """

    NONE = "none"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class ReplyEnding:
    """End of a reply.

    Attributes:
        status: Status on the wire.
        details: `status_details` on the wire; None for a complete answer.
        sentence: Sentence that the caller hears in place of an answer.
    """

    status: ResponseStatus
    details: Json | None = None
    sentence: Sentence = Sentence.NONE

    @property
    def reason(self) -> str:
        """Reason of an incomplete reply, or error code of a failed reply, from `details`; "" for a complete reply."""
        details = self.details or {}
        return str(details.get("reason") or details.get("error", {}).get("code", ""))


def ending_of(finish: str | None, *, present: bool, called: bool = False) -> ReplyEnding:
    """Return how a reply ends after its generation has ended.

    Args:
        finish: Why the generation ended (`ports.Finish`); None if nothing was generated, as for a greeting.
        present: True if the client got some of the answer: audio of a spoken reply, or text.
        called: True if the client got a tool call, after which silence is right.
    """
    if called:
        return ReplyEnding("completed")
    if finish == "content_filter":
        return _incomplete("content_filter", Sentence.NONE if present else Sentence.DECLINED)
    if finish == "length":
        return _incomplete("max_output_tokens", Sentence.NONE if present else Sentence.NO_ANSWER)
    if finish == "tool_calls":
        message = "The language model called a tool that the session does not declare."
        return ReplyEnding("failed", failure("unhandled_tool_call", message), Sentence.NO_ANSWER)
    if not present:
        message = "The language model answered with nothing that can be spoken or shown."
        return ReplyEnding("failed", failure("empty_answer", message), Sentence.NO_ANSWER)
    return ReplyEnding("completed")


def _incomplete(reason: str, sentence: Sentence) -> ReplyEnding:
    return ReplyEnding("incomplete", {"type": "incomplete", "reason": reason}, sentence)


def failure(code: str, message: str, kind: str = "server_error") -> Json:
    """Return the `status_details` of a failed response.

    Args:
        code: Short name of the failure, such as "empty_answer".
        message: Text for the client's developer.
        kind: `type` of the OpenAI Realtime error.
    """
    return {"type": "failed", "error": {"type": kind, "code": code, "message": message}}


def stage_of(fault: Exception) -> str:
    """Return the stage to which a reply's failure is attributed; "reply" if it is not known."""
    if isinstance(fault, BackendError) and fault.stage:
        return fault.stage
    # While a reply is made, only the stage "llm" can find a wrong configuration or refuse a request.
    return "llm" if isinstance(fault, ConfigError | CallerError) else "reply"


def failure_of(fault: Exception) -> Json:
    """Return the `status_details` of a response that failed because of `fault`.

    For a ConfigError, the details are hidden from the client. They are in the operator's log.
    """
    if isinstance(fault, CallerError):
        return failure(fault.code, str(fault), "invalid_request_error")
    if isinstance(fault, ConfigError):
        return failure(f"{stage_of(fault)}_misconfigured", "The language model is not configured correctly.")
    if isinstance(fault, RejoinderError):
        return failure(f"{stage_of(fault)}_unavailable", str(fault))
    return INTERNAL


INTERNAL = failure("internal_error", "The reply failed for an internal reason. The session goes on.")
