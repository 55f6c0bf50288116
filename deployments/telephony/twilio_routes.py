"""Routes for Twilio: `/voice` answers a call with TwiML, `/stream` carries its audio.

Both check Twilio's signature. A stream also needs the ticket of its TwiML, which is of one call and short-lived. A call
whose stream was lost asks `/voice` again: it gets the next stream if its conversation can go on, otherwise it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response

from actors.host import Host
from actors.survival.session_record import SessionOrigin
from deployments.serving.gate import ClientLimitReached, client_place, read_body, refusal_of
from deployments.telephony.phone_webhook import PhoneWebhook
from deployments.telephony.twilio_socket import TwilioSocket
from deployments.transports.call_protocol import EXTENSION
from deployments.transports.realtime_ws import AudioShortcut, RealtimeSocket
from rejoinder.core.access.access_control import AccessControl, Client
from rejoinder.core.access.api_keys import ApiKey, Scope, digest_of
from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.resume_token import ResumeToken
from rejoinder.core.telephony import twiml
from rejoinder.core.telephony.phone_call import PhoneCall
from rejoinder.core.telephony.phone_tools import PhoneProfile
from rejoinder.core.telephony.twilio_messages import StreamStarted, first_start, read_message
from rejoinder.core.telephony.twilio_signature import is_signed
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.session import SessionConfig

logger = logging.getLogger(__name__)

VOICE, STREAM = "/v1/telephony/twilio/voice", "/v1/telephony/twilio/stream"
AGAIN = "/again"
"""End of the address of a stream that goes on with a call."""
START_S = 10.0
"""Seconds in which a stream must say which call it is."""
MAX_FORM_BYTES = 65_536
CLOSE_POLICY, CLOSE_GONE = 1008, 1000
_SIGNATURE = "Twilio's signature is missing or wrong: check telephony.twilio.public_url and the auth token."


@dataclass(frozen=True, slots=True)
class TwilioAccess:
    """What Twilio's requests are checked with.

    Attributes:
        public_url: Address of the system as Twilio reaches it, without a slash at its end.
        auth_token: Auth token of the account.
        client: Twilio as a client of this system, under which its calls are counted.
    """

    public_url: str
    auth_token: str
    client: Client

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] = os.environ) -> TwilioAccess | None:
        """Return the access of the settings; None if Twilio is not enabled.

        Raises:
            ConfigError: Twilio is enabled, and there is no auth token.
        """
        twilio = settings.telephony.twilio
        if not twilio.enabled:
            return None
        token = environment.get(twilio.auth_token_env, "") or twilio.auth_token
        if not token:
            raise ConfigError(
                "it is true, and this host has no auth token, so it cannot tell Twilio from others.",
                f"Set {twilio.auth_token_env} on this node.",
                field="args.telephony.twilio.enabled",
            )
        limits = {"sessions": twilio.sessions or None, "per_minute": twilio.new_per_minute or None}
        key = ApiKey(digest_of(f"twilio {token}"), frozenset({Scope.TALK}), **limits)
        return cls(twilio.public_url.rstrip("/"), token, Client(key))

    def stream_url(self, *, again: bool) -> str:
        """Return the address of streams, with ws:// or wss://: of new calls, or of calls that go on."""
        return f"ws{self.public_url.removeprefix('http')}{STREAM}{AGAIN if again else ''}"

    def signed(self, headers: Mapping[str, str], url: str, form: tuple[tuple[str, str], ...] = ()) -> bool:
        """Return True if a request of Twilio to `url` with these headers and form fields has the right signature."""
        return is_signed(headers.get("x-twilio-signature", ""), self.auth_token, url, form)


class DirectCheck(Protocol):
    """Interface of the check whether a connection comes straight from HAProxy (`ProxyCheck`)."""

    def is_direct(self, scope: Mapping[str, Any]) -> bool:
        """Return True if the ASGI scope is that of such a connection."""
        ...


def add_twilio(web: FastAPI, host: Host, *, access: AccessControl, direct: DirectCheck) -> None:
    """Add the routes for Twilio, if the settings enable them.

    Args:
        web: The application of the host.
        host: The host.
        access: Counts the sessions of its clients.
        direct: Tells whether a connection comes straight from HAProxy.

    Raises:
        ConfigError: Twilio is enabled, and there is no auth token.
    """
    twilio = TwilioAccess.of(host.services.settings)
    if twilio is None:
        return
    calls = TwilioCalls(host, access, twilio, direct=direct)

    @web.post(VOICE)
    async def voice(request: Request) -> Response:
        """Answer a call of Twilio, or a call whose stream has ended, with TwiML."""
        return await calls.answer(request)

    @web.websocket(STREAM)
    async def stream(socket: WebSocket) -> None:
        """Carry the audio of a call of Twilio."""
        await calls.carry(socket)

    @web.websocket(f"{STREAM}{AGAIN}")
    async def stream_again(socket: WebSocket) -> None:
        """Carry the audio of a call whose stream was lost. It comes before new calls."""
        await calls.carry(socket, again=True)


class TwilioCalls:
    """The calls of Twilio on one host."""

    def __init__(self, host: Host, access: AccessControl, twilio: TwilioAccess, *, direct: DirectCheck) -> None:
        self._host = host
        self._direct = direct
        self._access = access
        self._twilio = twilio
        self._key = twiml.ticket_key(twilio.auth_token)
        telephony = host.services.settings.telephony
        self._profile = PhoneProfile(telephony.instructions, telephony.transfer_to, telephony.hang_up)
        webhook = telephony.webhook
        secret = os.environ.get(webhook.secret_env, "") or webhook.secret
        self._webhook = PhoneWebhook(webhook.url, webhook.timeout_s, secret) if webhook.url else None

    async def answer(self, request: Request) -> Response:
        """Return the answer to `POST /voice`: TwiML, or 403 if Twilio did not send it."""
        body = await read_body(request, MAX_FORM_BYTES)
        if body is None:
            return refusal_of(413, "invalid_value", f"The form has more than {MAX_FORM_BYTES} bytes.")
        form = tuple(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        query = request.scope.get("query_string", b"").decode("ascii", errors="replace")
        if not self._twilio.signed(request.headers, self._url(VOICE, query), form):
            return refusal_of(403, "invalid_signature", _SIGNATURE)
        fields, attempt = dict(form), request.query_params.get("attempt", "0")
        call = fields.get("CallSid", "")
        if not call or not attempt.isdigit():
            return refusal_of(400, "missing_required_parameter", "CallSid is missing.")
        return Response(await self._instructions(call, fields, int(attempt)), media_type="text/xml")

    async def _instructions(self, call: str, fields: Mapping[str, str], attempt: int) -> str:
        """Return the TwiML for a call. `attempt` counts the streams that it has had."""
        keeper = self._host.keeper
        if attempt:
            try:
                going_on = keeper is not None and await keeper.knows(twiml.session_key(call))
            except BackendError:
                going_on = True  # the journals may answer the stream
            if attempt >= twiml.MAX_ATTEMPTS or not going_on:
                return twiml.hang_up_answer()
        expires_at = int(time.time() + self._host.services.settings.telephony.twilio.ticket_s)
        ticket = twiml.StreamTicket(
            call,
            caller=fields.get("From", ""),
            called=fields.get("To", ""),
            attempt=attempt,
            expires_at=expires_at,
        )
        again = self._url(VOICE, f"attempt={attempt + 1}") if keeper else ""
        signed = twiml.sign_ticket(ticket, self._key)
        return twiml.connect_answer(
            self._twilio.stream_url(again=attempt > 0), ticket=signed, again_url=again, attempt=attempt
        )

    def _url(self, path: str, query: str) -> str:
        return f"{self._twilio.public_url}{path}" + (f"?{query}" if query else "")

    async def carry(self, socket: WebSocket, *, again: bool = False) -> None:
        """Refuse a stream with an HTTP status, or accept it and run the call until it ends.

        Args:
            socket: The connection, not yet accepted.
            again: True if the call goes on after its stream was lost. It is refused only if the host has no place.
        """
        if not self._twilio.signed(socket.headers, self._twilio.stream_url(again=again)):
            await socket.send_denial_response(refusal_of(403, "invalid_signature", _SIGNATURE))
            return
        if not self._direct.is_direct(socket.scope):
            await socket.send_denial_response(refusal_of(503, "not_ready", "Try again.", retry_after_s=1.0))
            return
        try:
            with client_place(self._access, self._twilio.client, resumed=again), self._host.seat(resumed=again):
                await socket.accept()
                await self._serve(socket)
        except ClientLimitReached as limit:
            await socket.send_denial_response(limit.refusal)
        except Overloaded as full:
            await socket.send_denial_response(
                refusal_of(503, "overloaded", str(full), retry_after_s=full.retry_after_s)
            )

    async def _serve(self, socket: WebSocket) -> None:
        shortcut = socket.scope.get("extensions", {}).get(EXTENSION)
        try:
            async with asyncio.timeout(START_S):
                start = await _first(socket, shortcut)
        except (CallerError, TimeoutError) as fault:
            logger.warning("a stream of Twilio does not begin: %s", str(fault) or "no start message")
            await socket.close(CLOSE_POLICY, "no valid start message")
            return
        if start is None:
            return
        ticket = twiml.read_ticket(start.parameters.get(twiml.TICKET, ""), self._key, start.call, time.time())
        if ticket is None:
            logger.warning("a stream of Twilio has no valid ticket")
            await socket.close(CLOSE_POLICY, "no valid ticket")
            return
        origin = await self._origin(start.call) if ticket.attempt else None
        if ticket.attempt and origin is None:
            await socket.close(CLOSE_GONE, "the conversation has ended")
            return
        call = PhoneCall(self._profile, resumed=origin is not None)
        stream = TwilioSocket(
            socket, start=start, call=call, caller=ticket.caller, webhook=self._webhook, shortcut=shortcut
        )
        async with stream:
            await RealtimeSocket(
                stream,
                host=self._host,
                config=SessionConfig(input_format=AudioFormat.PCMU, output_format=AudioFormat.PCMU),
                shortcut=stream,
                tenant=self._twilio.client.tenant,
                owner=self._owner,
                origin=origin,
                key=twiml.session_key(start.call),
            ).converse()

    @property
    def _owner(self) -> str:
        return self._twilio.client.key.digest if self._twilio.client.key else ""

    async def _origin(self, call: str) -> SessionOrigin | None:
        """Return where the conversation of a call goes on; None if no journal has it."""
        if self._host.keeper is None:
            return None
        try:
            return await self._host.keeper.claim(ResumeToken(twiml.session_key(call), self._owner, 0), None)
        except BackendError as fault:
            logger.warning("a call of Twilio cannot go on: %s", fault)
            return None


async def _first(socket: WebSocket, shortcut: AudioShortcut | None) -> StreamStarted | None:
    """Return the message with which a stream starts; None if the connection ended before.

    Raises:
        CallerError: Another message came first.
    """
    while (received := await socket.receive())["type"] != "websocket.disconnect":
        text = received.get("text")
        start = first_start(read_message(text if text is not None else received.get("bytes") or b""))
        if shortcut:
            shortcut.answered()
        if start:
            return start
    return None
