"""Tests of the examples of telephone calls: Twilio's configuration and webhook, and Asterisk's dialplan."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from inspect import signature
from pathlib import Path
from urllib.parse import parse_qs

import yaml

from cluster.environment import free_port
from deployments.telephony.phone_webhook import ACCEPTED, FAILED, PhoneWebhook
from deployments.telephony.twilio_routes import TwilioAccess
from rejoinder.cli.phone.command import phone
from rejoinder.core.settings.serve_file import parse_serve_file
from rejoinder.core.telephony.phone_tools import Transfer

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_twilio_configuration_is_valid() -> None:
    """With the auth token, a host of the example answers Twilio, and the agent may transfer to its destination."""
    text = (EXAMPLES / "twilio" / "ray_config.yaml").read_text(encoding="utf-8")
    settings = parse_serve_file(yaml.safe_load(text)).application.args
    access = TwilioAccess.of(settings, {"REJOINDER_TWILIO_AUTH_TOKEN": "x"})
    assert access is not None
    assert access.stream_url(again=False) == "wss://voice.example.com/v1/telephony/twilio/stream"
    assert settings.telephony.transfer_to == {"reservations": "+4930123456"}


async def test_the_webhook_moves_the_call_at_twilio() -> None:
    """The example dials the destination by Twilio's API. It refuses a request with another secret."""
    asked: list[bytes] = []

    async def api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        asked.append(head + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(api, "127.0.0.1", 0) as listener:
        environment = os.environ | {
            "REJOINDER_PHONE_WEBHOOK_SECRET": "secret",
            "REJOINDER_TWILIO_AUTH_TOKEN": "token",
            "TWILIO_ACCOUNT_SID": "AC1",
            "TWILIO_API": f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}",
            "PORT": str(port),
        }
        script = str(EXAMPLES / "twilio" / "transfer.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(20):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        await asyncio.sleep(0.05)
                    else:
                        writer.close()
                        break
            transfer = Transfer("call_1", "reservations", "+4930123456", "a table for two")
            url = f"http://127.0.0.1:{port}/transfer"
            assert await PhoneWebhook(url, 5.0, "secret").transfer(transfer, "CA1", "+1") == ACCEPTED
            assert await PhoneWebhook(url, 5.0, "another").transfer(transfer, "CA1", "+1") == FAILED
        finally:
            process.kill()
            await process.wait()
    (request,) = asked
    assert request.startswith(b"POST /2010-04-01/Accounts/AC1/Calls/CA1.json ")
    form = parse_qs(request.partition(b"\r\n\r\n")[2].decode())
    assert form["Twiml"] == ["<Response><Dial>+4930123456</Dial></Response>"]


def test_the_dialplan_calls_the_gateways_default_address() -> None:
    """The dialplan gives each call an id of its own, and calls the address on which `rejoinder phone` listens."""
    dialplan = (EXAMPLES / "asterisk" / "extensions.conf").read_text(encoding="utf-8")
    assert "uuidgen" in dialplan
    assert re.findall(r"AudioSocket\(\$\{CALL\},([^)]+)\)", dialplan) == [
        signature(phone).parameters["audiosocket"].default
    ]
