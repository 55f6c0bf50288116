"""Tests of how a reply ends: its status on the wire, and the sentence that the caller hears without an answer."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded
from rejoinder.core.wire.endings import Sentence, ending_of, failure_of


@pytest.mark.parametrize(
    ("finish", "present", "status", "reason", "sentence"),
    [
        ("stop", True, "completed", "", Sentence.NONE),
        (None, True, "completed", "", Sentence.NONE),
        ("stop", False, "failed", "empty_answer", Sentence.NO_ANSWER),
        ("length", True, "incomplete", "max_output_tokens", Sentence.NONE),
        ("length", False, "incomplete", "max_output_tokens", Sentence.NO_ANSWER),
        ("content_filter", True, "incomplete", "content_filter", Sentence.NONE),
        ("content_filter", False, "incomplete", "content_filter", Sentence.DECLINED),
        ("tool_calls", True, "failed", "unhandled_tool_call", Sentence.NO_ANSWER),
        ("tool_calls", False, "failed", "unhandled_tool_call", Sentence.NO_ANSWER),
    ],
)
def test_the_end_of_a_generation(
    finish: str | None, *, present: bool, status: str, reason: str, sentence: Sentence
) -> None:
    """Status, reason and spoken sentence follow from why the generation ended (`finish`).

    They also depend on `present`: whether the client got some of the answer.
    """
    ending = ending_of(finish, present=present)
    assert (ending.status, ending.reason, ending.sentence) == (status, reason, sentence)


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        (CallerError("long", code="context_length_exceeded"), "context_length_exceeded", "invalid_request_error"),
        (ConfigError("secret", field="args.llm.base_url"), "llm_misconfigured", "server_error"),
        (BackendError("gone", stage="tts"), "tts_unavailable", "server_error"),
        (Overloaded("full", resource="llm"), "reply_unavailable", "server_error"),
        (ZeroDivisionError("secret"), "internal_error", "server_error"),
    ],
)
def test_the_failure_of_a_reply(fault: Exception, code: str, kind: str) -> None:
    """The error code says who must act: client, operator or developer.

    The message shows a client nothing of the operator's configuration or of a bug.
    """
    error = failure_of(fault)["error"]
    assert (error["code"], error["type"]) == (code, kind)
    assert "secret" not in error["message"]
