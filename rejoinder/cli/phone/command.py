"""`rejoinder phone`: answer calls of Asterisk (AudioSocket) and connect each with a session of a server."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from rejoinder.cli.talk import API_KEY
from rejoinder.cli.trust import Ca, trust
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.telephony.phone_tools import PhoneProfile

WEBHOOK_SECRET = "REJOINDER_PHONE_WEBHOOK_SECRET"
"""Environment variable with the secret that signs the requests to the webhook."""

AudioSocket = Annotated[
    str,
    typer.Option(
        "--audiosocket",
        metavar="HOST:PORT",
        help="Address to listen on. AudioSocket has neither keys nor encryption: use one that only Asterisk reaches.",
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="URL", help="OpenAI base URL of the server. May be repeated: tried in this order."),
]
Instructions = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the system prompt. Otherwise the server's own.")
]
HangUp = Annotated[bool, typer.Option("--hang-up", help="Let the agent end the call.")]
TransferTo = Annotated[
    list[str] | None,
    typer.Option(
        "--transfer-to", metavar="NAME=NUMBER", help="Where the agent may transfer a caller. May be repeated."
    ),
]
Webhook = Annotated[str, typer.Option("--webhook", metavar="URL", help="Address that gets the transfers.")]
WebhookTimeout = Annotated[float, typer.Option(min=0.1, max=60, help="Seconds until a webhook has failed.")]
MaxCalls = Annotated[int, typer.Option(min=1, help="Calls at the same time. Further ones are hung up at once.")]


def phone(
    audiosocket: AudioSocket = "127.0.0.1:9092",
    to: To = None,
    *,
    instructions: Instructions = None,
    hang_up: HangUp = False,
    transfer_to: TransferTo = None,
    webhook: Webhook = "",
    webhook_timeout: WebhookTimeout = 5.0,
    max_calls: MaxCalls = 100,
    ca: Ca = None,
) -> None:
    """Answer telephone calls of Asterisk over AudioSocket, and connect each with a session of a running server.

    It runs beside Asterisk, and reaches the server like any client. A call whose host fails goes on at another one.
    The environment variable REJOINDER_API_KEY, if set, is sent as the bearer token. REJOINDER_PHONE_WEBHOOK_SECRET, if
    set, signs the requests to the webhook. Ctrl-C ends it and its calls.

    Exit status: 0 after Ctrl-C, 2 after an error.
    """
    from deployments.telephony.phone_webhook import PhoneWebhook
    from rejoinder.cli.phone.gateway import PhoneGateway
    from rejoinder.cli.phone.session_link import SessionServer

    trust(ca)
    host, port = _address(audiosocket)
    destinations = dict(_destination(entry) for entry in transfer_to or ())
    if destinations and not webhook:
        raise ConfigError("transfers need a webhook.", "Add --webhook URL.", field="--transfer-to")
    profile = PhoneProfile(_text(instructions), destinations, hang_up)
    server = SessionServer(tuple(to or ("ws://127.0.0.1:8000/v1",)), os.environ.get(API_KEY, ""))
    handler = PhoneWebhook(webhook, webhook_timeout, os.environ.get(WEBHOOK_SECRET, "")) if webhook else None
    gateway = PhoneGateway(server, profile, webhook=handler, max_calls=max_calls)
    if not is_loopback(host):
        typer.secho(f"Everybody who reaches {audiosocket} can call.", fg=typer.colors.YELLOW, err=True)
    try:
        asyncio.run(_serve(gateway, host, port))
    except KeyboardInterrupt:
        typer.echo("The gateway has ended.")


async def _serve(gateway: object, host: str, port: int) -> None:
    from rejoinder.cli.phone.gateway import PhoneGateway

    assert isinstance(gateway, PhoneGateway)
    async with gateway.listening(host, port) as bound:
        typer.echo(f"AudioSocket: {host}:{bound}")
        await asyncio.Event().wait()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{text!r} is not an address to listen on.", "Write HOST:PORT.", field="--audiosocket")
    return host.strip("[]"), int(port)


def _destination(entry: str) -> tuple[str, str]:
    name, _, number = entry.partition("=")
    if not name or not number:
        raise ConfigError(f"{entry!r} is not a destination.", "Write NAME=NUMBER.", field="--transfer-to")
    return name, number


def _text(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}).", field="--instructions") from error
