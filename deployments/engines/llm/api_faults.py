"""Classification of the errors of an OpenAI-compatible server: who must act, and whether a repetition can help.

A fault of the request is a `CallerError`, one of the configuration a `ConfigError`: repeating them is useless. A full
server is `Overloaded`. Anything else is a `BackendError`, which the session repeats.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded, RejoinderError

KEY_FIELD = "args.llm.api_key_env"
MODEL_FIELD = "args.llm.model"
URL_FIELD = "args.llm.base_url"
# Pause in seconds if a full server names none.
DEFAULT_WAIT_S = 1.0
# Client errors that a repetition may repair: timeout, conflict, too early.
TRANSIENT = frozenset({408, 409, 425})
_TOO_LONG = re.compile(r"context.?(length|window|size)|too long|too large|maximum.{0,30}tokens", re.IGNORECASE)
# (part of an error's code or type, HTTP status): the status that counts for an error inside a stream, which has none.
_CODES = (
    ("api_key", 401),
    ("authentication", 401),
    ("permission", 403),
    ("model_not_found", 404),
    ("not_found", 404),
    ("quota", 402),
    ("billing", 402),
    ("rate_limit", 429),
    ("overloaded", 503),
    ("invalid_request", 400),
    ("badrequest", 400),
    ("context_length", 400),
    ("content_filter", 400),
)


def filtered(error: object) -> bool:
    """Return True if a server refused the prompt because of its content. Such a refusal is an answer, not a fault."""
    return _code(error) in ("content_filter", "content_policy_violation")


def fault_of(name: str, status: int | None, error: object, retry_after: str = "") -> RejoinderError:
    """Return the typed error for an error response, or for an error inside a stream.

    Args:
        name: The engine's name, for the message.
        status: The HTTP status; None for an error inside a stream.
        error: The server's error: an object with `message`, `code` and `type`, or any text.
        retry_after: The header Retry-After; "" if there is none.
    """
    if status is None:
        status = _status_of(error)
    text = f"{name}: {_message(error)}" + (f" (HTTP {status})." if status else ".")
    code = _code(error)
    if status == 402 or "quota" in code:
        return ConfigError(text, "The account of the API key has no credit or quota left.", field=KEY_FIELD)
    if status in (401, 403):
        return ConfigError(text, "The server refuses the API key: put a valid one in that variable.", field=KEY_FIELD)
    if status == 404 and "model" in f"{code} {_message(error)}".lower():
        return ConfigError(text, "The server has no such model: see its list of models.", field=MODEL_FIELD)
    if status in (404, 405, 410) or (status and 300 <= status < 400):
        return ConfigError(
            text, "The server has no chat completions at that address, or no such model.", field=URL_FIELD
        )
    if status in (429, 503, 529):
        return Overloaded(text, retry_after_s=seconds(retry_after), resource="llm", shared=True)
    if status and 400 <= status < 500 and status not in TRANSIENT:
        too_long = "context_length" in code or _TOO_LONG.search(_message(error))
        if too_long:
            remedy = "Shorten the instructions or the messages."
            return CallerError(text, remedy, code="context_length_exceeded")
        return CallerError(text, "The server does not accept this request.", code="invalid_request")
    return BackendError(text, stage="llm")


def seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, which has a number or a date; at least 0.

    A header that is missing or not understood counts as DEFAULT_WAIT_S, and so does a date in the past.
    """
    try:
        value = float(retry_after)
    except ValueError:
        try:
            value = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return DEFAULT_WAIT_S
        return value if value > 0 else DEFAULT_WAIT_S
    return max(0.0, value) if math.isfinite(value) else DEFAULT_WAIT_S


def _status_of(error: object) -> int | None:
    """Return the HTTP status that fits an error inside a stream; None if nothing in it says which."""
    code = _code(error)
    if code.isdigit() and 400 <= int(code) < 600:
        return int(code)
    kind = str(error.get("type") or "").lower() if isinstance(error, Mapping) else ""
    return next((status for part, status in _CODES if part in code or part in kind), None)


def _code(error: object) -> str:
    return str(error.get("code") or "").lower() if isinstance(error, Mapping) else ""


def _message(error: object) -> str:
    text = error.get("message") if isinstance(error, Mapping) else error
    return " ".join(str(text or error or "no reason given").split())[:300].rstrip(".")
