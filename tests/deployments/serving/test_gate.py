"""Tests of the gate of the HTTP routes: origins, keys, scopes and client secrets, in one process without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from deployments.serving.access import carrying_keys, keys_here, open_access
from deployments.serving.gate import ClientLimitReached, refusal_of
from deployments.serving.http_routes import http_app
from deployments.transports.call_protocol import CallProtocol
from rejoinder.core.access.access_control import AccessControl, Refusal
from rejoinder.core.access.api_keys import Scope, parse_keys
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.access.access import AccessSettings
from rejoinder.core.settings.settings import Settings, parse_settings
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served, running

KEYS = "alpha, talker scope=talk sessions=1, meter scope=metrics"


@asynccontextmanager
async def serving(keys: str, **settings: Any) -> AsyncIterator[str]:
    """Run a host with fake stages and these keys until the block ends. Yield its HOST:PORT."""
    options = {"signing_key": "s" * 32, **settings}
    access = AccessControl(parse_keys(keys, "KEYS") if keys else (), AccessSettings(**options))
    async with (
        Play().open() as host,
        running(http_app(Served(host, access)), lifespan="off", ws=CallProtocol) as address,
    ):
        yield address


async def connect(
    address: str, key: str = "", origin: str | None = None, protocols: tuple[str, ...] = ()
) -> dict[str, Any] | tuple[int, str]:
    """Open a session and return its session.created. If it is refused, return the status and the error code.

    Args:
        address: HOST:PORT of the server.
        key: API key or client secret, sent as a bearer token.
        origin: Header Origin of the page.
        protocols: Subprotocols to offer.
    """
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | ({"Origin": origin} if origin else {})
    offered = [websockets.Subprotocol(name) for name in protocols] or None
    try:
        async with websockets.connect(
            f"ws://{address}/v1/realtime", additional_headers=headers, subprotocols=offered
        ) as socket:
            event: dict[str, Any] = json.loads(await socket.recv())
            return event
    except InvalidStatus as refused:
        return refused.response.status_code, json.loads(bytes(refused.response.body))["error"]["code"]


async def get(address: str, path: str, key: str = "") -> int:
    async with httpx2.AsyncClient() as client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return int((await client.get(f"http://{address}{path}", headers=headers)).status_code)


async def secret(address: str, key: str, body: object = None, origin: str | None = None) -> httpx2.Response:
    """Request a client secret and return the response."""
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | ({"Origin": origin} if origin else {})
    async with httpx2.AsyncClient() as client:
        return await client.post(f"http://{address}/v1/realtime/client_secrets", json=body or {}, headers=headers)


async def handshake(address: str, path: str, headers: dict[str, str]) -> dict[str, Any] | tuple[int, str]:
    """Open a WebSocket at a path. Return its first event, or the status and the error's code of the refusal."""
    try:
        async with websockets.connect(f"ws://{address}{path}", additional_headers=headers) as socket:
            event: dict[str, Any] = json.loads(await socket.recv())
            return event
    except InvalidStatus as refused:
        return refused.response.status_code, json.loads(bytes(refused.response.body))["error"]["code"]


async def test_where_a_websocket_connects() -> None:
    """Every documented path opens a session, also with a slash at its end. Any other gets 404 with a reason.

    Azure's clients send their key in the header api-key.
    """
    bearer = {"Authorization": "Bearer alpha"}
    async with serving(KEYS) as address:
        for path in ("/v1/realtime", "/realtime", "/openai/v1/realtime"):
            for end in ("", "/", "?model=m", "/?model=m"):
                assert isinstance(await handshake(address, path + end, bearer), dict), path + end
        azure = await handshake(address, "/openai/v1/realtime?deployment=mine", {"api-key": "alpha"})
        assert isinstance(azure, dict)
        assert azure["session"]["model"] == "mine"
        for path in ("/", "/v1", "/v1/realtime/calls", "/v1/models", "/v2/realtime"):
            assert await handshake(address, path, bearer) == (404, "not_found"), path
        heard = await handshake(address, "/v1/realtime?intent=transcription", bearer)
        assert isinstance(heard, dict)
        assert heard["session"]["type"] == "transcription"
        assert await get(address, "/v1/models/rejoinder", "alpha") == 200
        assert await get(address, "/v1/models/gpt-4o", "alpha") == 404
        assert await get(address, "/v1/models/rejoinder") == 401


async def test_what_a_handshake_cannot_ask_for() -> None:
    """A beta client and one that asks for a call are refused before the upgrade, with an error that says why."""
    async with serving("") as address:
        beta = await handshake(address, "/v1/realtime", {"OpenAI-Beta": "realtime=v1"})
        assert beta == (400, "beta_not_supported")
        protocols = {"Sec-WebSocket-Protocol": "realtime, openai-beta.realtime-v1"}
        assert await handshake(address, "/v1/realtime", protocols) == (400, "beta_not_supported")
        assert await handshake(address, "/v1/realtime?call_id=rtc_1", {}) == (404, "call_not_found")


async def test_a_page_of_another_origin_gets_403() -> None:
    """A web page of another origin cannot open a session, even on a host without keys or with a valid key.

    A page of the host's own address, a listed page and a client without Origin can.
    """
    async with serving("", origins=("https://app.example",)) as address:
        for evil in ("https://evil.example", "null", "http://127.0.0.1:1"):
            assert await connect(address, origin=evil) == (403, "origin_not_allowed")
        for good in (None, f"http://{address}", "https://app.example"):
            assert isinstance(await connect(address, origin=good), dict)
    async with serving(KEYS) as address:
        assert await connect(address, "alpha", origin="https://evil.example") == (403, "origin_not_allowed")
        assert (await secret(address, "alpha", origin="https://evil.example")).status_code == 403


@pytest.mark.parametrize("key", ["", "beta", "alph", "alpha,", "sha256:" + "0" * 64, "ek_x.y"])
async def test_a_wrong_key_gets_401(key: str) -> None:
    """A missing, wrong or made-up key gets status 401 at each protected route."""
    async with serving(KEYS) as address:
        assert await connect(address, key) == (401, "invalid_api_key")
        assert await get(address, "/v1/models", key) == 401
        assert await get(address, "/metrics/targets", key) == 401
        assert (await secret(address, key)).status_code == 401


async def test_a_key_without_the_scope_gets_403() -> None:
    """A key for metrics cannot talk and a key for talking cannot read the targets. Health needs no key."""
    async with serving(KEYS) as address:
        assert await connect(address, "meter") == (403, "scope_missing")
        assert (await secret(address, "meter")).status_code == 403
        assert await get(address, "/metrics/targets", "talker") == 403
        statuses = [
            await get(address, "/metrics/targets", "meter"),
            await get(address, "/v1/models", "meter"),
            await get(address, "/v1/models", "talker"),
            await get(address, "/healthz"),
        ]
        assert statuses == [200] * 4
        assert isinstance(await connect(address, "alpha"), dict)


async def test_a_client_secret_opens_a_session_with_its_settings() -> None:
    """A browser connects with a client secret, as a bearer token or a subprotocol. Its session has the settings."""
    async with serving(KEYS, origins=("https://app.example",)) as address:
        body = {"expires_after": {"seconds": 60}, "session": {"type": "realtime", "instructions": "Be brief."}}
        answer = (await secret(address, "alpha", body)).json()
        assert answer["value"].startswith("ek_")
        assert answer["session"]["type"] == "realtime"
        assert answer["session"]["object"] == "realtime.session"
        assert answer["session"]["id"]
        created = await connect(address, answer["value"])
        assert isinstance(created, dict)
        assert created["session"]["instructions"] == "Be brief."
        protocols = ("realtime", f"openai-insecure-api-key.{answer['value']}")
        assert isinstance(await connect(address, origin="https://app.example", protocols=protocols), dict)
        assert (await secret(address, answer["value"])).status_code == 403
        assert await get(address, "/metrics/targets", answer["value"]) == 403


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "invalid_type"),
        ({"session": {"output_modalities": ["smell"]}}, "invalid_value"),
        ({"session": {"instructions": "x" * 5000}}, "invalid_value"),
        ({"session": {"instructions": "x" * 50_000}}, "invalid_value"),
        ({"expires_after": {"seconds": 1}}, "invalid_value"),
    ],
)
async def test_a_wrong_request_for_a_secret_gets_400(body: object, code: str) -> None:
    """A request for a client secret with a wrong or too large body gets status 400 with the error's code."""
    async with serving(KEYS) as address, httpx2.AsyncClient() as client:
        url = f"http://{address}/v1/realtime/client_secrets"
        answer = await client.post(url, json=body, headers={"Authorization": "Bearer alpha"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == code


async def test_without_a_signing_key_a_request_for_a_secret_gets_501() -> None:
    """A host without a signing key answers with 501. HAProxy would send a 503 to every other host."""
    async with serving(KEYS, signing_key="") as address:
        answer = await secret(address, "alpha")
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_configured")


@pytest.mark.parametrize(("wait_s", "header"), [(0.0, "1"), (0.2, "1"), (1.2, "2"), (5.0, "5")])
def test_retry_after_is_rounded_up(wait_s: float, header: str) -> None:
    """A client that waits for Retry-After seconds does not come too early."""
    assert ClientLimitReached(Refusal("Full.", wait_s)).refusal.headers["retry-after"] == header
    assert refusal_of(503, "overloaded", "Full.", retry_after_s=wait_s).headers["retry-after"] == header
    assert "retry-after" not in refusal_of(401, "invalid_api_key", "No.").headers


async def test_a_key_has_its_places() -> None:
    """A key with one session gets status 429 and Retry-After for a second one, until the first has ended."""
    async with serving(KEYS) as address:
        headers = {"Authorization": "Bearer talker"}
        async with websockets.connect(f"ws://{address}/v1/realtime", additional_headers=headers):
            assert await connect(address, "talker") == (429, "rate_limit_exceeded")
            assert isinstance(await connect(address, "alpha"), dict)
        for _ in range(100):
            if isinstance(await connect(address, "talker"), dict):
                return
            await asyncio.sleep(0.01)
        pytest.fail("the place was not given back")


async def test_an_address_has_its_places() -> None:
    """A second session of one address gets status 429, whatever the client says about others before the last proxy."""
    async with serving("", sessions_per_address=1) as address:
        forwarded = {"X-Forwarded-For": "9.9.9.9, 10.0.0.1"}
        async with websockets.connect(f"ws://{address}/v1/realtime", additional_headers=forwarded):
            for claimed in ("10.0.0.1", "8.8.8.8, 10.0.0.1"):
                with pytest.raises(InvalidStatus) as caught:
                    async with websockets.connect(
                        f"ws://{address}/v1/realtime", additional_headers={"X-Forwarded-For": claimed}
                    ):
                        pass
                assert caught.value.response.status_code == 429
                assert caught.value.response.headers["Retry-After"] == "5"
            elsewhere = {"X-Forwarded-For": "10.0.0.2"}
            async with websockets.connect(f"ws://{address}/v1/realtime", additional_headers=elsewhere):
                pass


async def test_a_browser_may_ask_before_it_sends_a_key() -> None:
    """The preflight of a page that is allowed gets its permission, and it may read the answers; another page gets 403.

    Without the header Origin nothing is permitted to pages.
    """
    page = "https://app.example"
    async with serving(KEYS, origins=(page,)) as address, httpx2.AsyncClient() as client:
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-other"}
        for path in ("/v1/realtime/client_secrets", "/v1/models"):
            url = f"http://{address}{path}"
            allowed = await client.options(url, headers={"Origin": page, **asking})
            assert allowed.status_code == 204
            assert allowed.headers["access-control-allow-origin"] == page
            assert allowed.headers["access-control-allow-headers"] == "authorization,x-other"
            assert "POST" in allowed.headers["access-control-allow-methods"]
            assert allowed.headers["vary"] == "Origin"
            refused = await client.options(url, headers={"Origin": "https://evil.example", **asking})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
        key = {"Authorization": "Bearer alpha"}
        answer = await client.get(f"http://{address}/v1/models", headers={"Origin": page, **key})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, page)
        answer = await client.get(f"http://{address}/v1/models", headers=key)
        assert "access-control-allow-origin" not in answer.headers
        denied = await client.get(f"http://{address}/v1/models", headers={"Origin": page})
        assert (denied.status_code, denied.headers["access-control-allow-origin"]) == (401, page)


def test_hosts_need_the_certificate_that_the_settings_name() -> None:
    """A host whose node's HAProxy has no certificate does not start: calls would not be encrypted."""
    settings = parse_settings({"tls": {"certificate": "/tls/cert.pem", "key": "/tls/key.pem"}})
    with pytest.raises(ConfigError, match=r"REJOINDER_TLS_CERTIFICATE=/tls/cert\.pem REJOINDER_TLS_KEY="):
        open_access(settings, {})
    open_access(settings, settings.tls.variables())
    with pytest.raises(ConfigError, match=r"tls.certificate is missing"):
        parse_settings({"tls": {"key": "/tls/key.pem"}})


def test_a_variable_without_a_key_stops_the_start() -> None:
    """If the variable of keys is set but has no key, neither a launcher nor a host starts."""
    for text in ("", ",", "  "):
        with pytest.raises(ConfigError, match="REJOINDER_API_KEYS: there is no key"):
            keys_here(Settings(), {"REJOINDER_API_KEYS": text})
        with pytest.raises(ConfigError, match="REJOINDER_API_KEYS"):
            open_access(Settings(), {"REJOINDER_API_KEYS": text})


@pytest.mark.parametrize("bind", ["", "0.0.0.0", "10.0.0.1", "voice.example"])
def test_a_host_that_other_machines_reach_needs_a_key(bind: str) -> None:
    """A host without keys does not start on an address that other machines reach, whatever has started it.

    It starts with a key, with `access.insecure`, or on the loopback address.
    """
    with pytest.raises(ConfigError, match="no key is set"):
        open_access(Settings(), {}, bind=bind)
    assert open_access(Settings(), {"REJOINDER_API_KEYS": "alpha"}, bind=bind).keys
    assert not open_access(parse_settings({"access": {"insecure": True}}), {}, bind=bind).keys
    assert not open_access(Settings(), {}, bind="127.0.0.1").keys


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    """The keys of the file, of the variable and of the settings are accepted together. A missing file is an error."""
    file = tmp_path / "keys"
    file.write_text("# callers\nfiled sessions=3\n", encoding="utf-8")
    settings = parse_settings({"access": {"keys_file": str(file)}})
    access = open_access(settings, {"REJOINDER_API_KEYS": "alpha"})
    assert access.client(["filed"], Scope.TALK, 0)
    assert access.client(["alpha"], Scope.TALK, 0)
    file.unlink()
    with pytest.raises(ConfigError, match=r"keys_file.*cannot be read"):
        open_access(settings, {})


def test_keys_are_carried_from_the_launcher_to_the_hosts() -> None:
    """A host on a node without the variable accepts the launcher's keys and no others. The settings contain no key.

    Without the keys it does not start. Client secrets of one host are good on the other.
    """
    carried = carrying_keys(Settings(), {"REJOINDER_API_KEYS": "alpha, beta scope=talk"})
    assert "alpha" not in carried.model_dump_json()
    first, second = open_access(carried, {}), open_access(carried, {})
    assert first.client(["alpha"], Scope.METRICS, 0)
    assert first.client(["beta"], Scope.TALK, 0)
    assert first.client(["gamma"], Scope.TALK, 0) is None
    assert first.settings.signing_key == second.settings.signing_key != ""
    emptied = carried.model_copy(update={"access": carried.access.model_copy(update={"keys": ()})})
    with pytest.raises(ConfigError, match="this host has no key"):
        open_access(emptied, {})


def test_without_keys_the_launcher_carries_none() -> None:
    """If the launcher has no keys, the hosts decide by their own."""
    carried = carrying_keys(Settings(), {})
    assert not carried.access.required
    assert not open_access(carried, {}).keys
    assert open_access(carried, {"REJOINDER_API_KEYS": "own"}).keys


def test_a_key_must_not_stand_in_the_configuration() -> None:
    """A plain key in the configuration file is refused, because Ray shows the configuration to the whole cluster."""
    with pytest.raises(ConfigError, match="a key must not stand in the configuration"):
        parse_settings({"access": {"keys": ["alpha"]}})
