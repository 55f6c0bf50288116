"""TwiML answers to Twilio, and the ticket with which the stream of a call is opened.

A call is answered with `<Connect><Stream>`, followed by `<Redirect>`: when the stream ends, Twilio asks again, and the
answer is the next stream if the conversation goes on, or `<Hangup>`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from html import escape

from rejoinder.core.wire.signed_text import SignedText

TICKET = "rejoinder_ticket"
"""Name of the `<Parameter>` with the ticket."""
MAX_ATTEMPTS = 20
"""Number of streams that one call may open. A call that fails this often is ended."""
PAUSE_FROM = 3
"""Attempt from which Twilio waits a second before it connects again."""

_TICKET = SignedText("pt_", b"rejoinder telephone ticket.")
_HEADER = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass(frozen=True, slots=True)
class StreamTicket:
    """What a ticket contains: whoever opens a stream with it may talk as this call.

    Attributes:
        call: Id of the call (`CallSid`).
        caller: Number of the caller; "" if it is not known.
        called: Number that was called.
        attempt: Number of the call's stream, from 0. Later ones go on with the conversation.
        expires_at: Unix time in seconds at which it expires.
    """

    call: str
    caller: str
    called: str
    attempt: int
    expires_at: int


def ticket_key(auth_token: str) -> str:
    """Return the signing key of tickets that belongs to an auth token. All hosts with the auth token have the same."""
    return hmac.new(auth_token.encode(), b"rejoinder telephone tickets", hashlib.sha256).hexdigest()


def sign_ticket(ticket: StreamTicket, signing_key: str) -> str:
    """Return the ticket as the text that Twilio passes on."""
    content = [ticket.call, ticket.caller, ticket.called, ticket.attempt, ticket.expires_at]
    return _TICKET.sign(content, signing_key)


def read_ticket(text: str, signing_key: str, call: str, now: float) -> StreamTicket | None:
    """Return the content of a ticket; None if it is changed, expired or of another call.

    Args:
        text: What Twilio has passed on.
        signing_key: The key of `ticket_key`.
        call: Id of the call that opens the stream.
        now: Unix time in seconds.
    """
    content = _TICKET.read(text, [signing_key])
    if content is None:
        return None
    ticket = StreamTicket(*content)
    return ticket if ticket.call == call and now < ticket.expires_at else None


def session_key(call: str) -> str:
    """Return the key of the session of a call, the same on every host."""
    return f"tel{hashlib.sha256(call.encode()).hexdigest()[:16]}"


def connect_answer(stream_url: str, ticket: str, again_url: str = "", *, attempt: int = 0) -> str:
    """Return the TwiML that connects a call with a stream.

    Args:
        stream_url: wss:// address of the stream.
        ticket: The ticket as text.
        again_url: Address that Twilio asks when the stream has ended; "" to hang up then.
        attempt: Number of the call's stream, from 0.
    """
    pause = '<Pause length="1"/>' if attempt >= PAUSE_FROM else ""
    parameter = f'<Parameter name="{TICKET}" value="{escape(ticket)}"/>'
    stream = f'<Connect><Stream url="{escape(stream_url)}">{parameter}</Stream></Connect>'
    again = f'<Redirect method="POST">{escape(again_url)}</Redirect>' if again_url else ""
    return f"{_HEADER}<Response>{pause}{stream}{again}</Response>"


def hang_up_answer() -> str:
    """Return the TwiML that ends a call."""
    return f"{_HEADER}<Response><Hangup/></Response>"
