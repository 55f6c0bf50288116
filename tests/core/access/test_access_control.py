"""Tests of access control: scopes, client secrets of every kind of forger, and the limits of a key."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.access.access_control import AccessControl, Client, network_of
from rejoinder.core.access.api_keys import Scope, digest_of, parse_keys
from rejoinder.core.access.client_secrets import MAX_SESSION_JSON, PREFIX
from rejoinder.core.errors import CallerError
from rejoinder.core.settings.access.access import AccessSettings
from rejoinder.core.wire.fields import Fields

KEYS = "alpha scope=talk, beta scope=metrics, gamma scope=admin"
NOW = 1_800_000_000.0


def control(keys: str = KEYS, signing_key: str = "s" * 32, **settings: Any) -> AccessControl:
    return AccessControl(parse_keys(keys, "KEYS"), AccessSettings(signing_key=signing_key, **settings))


def issued(access: AccessControl, body: dict[str, Any] | None = None) -> str:
    client = access.client(["alpha"], Scope.TALK, NOW)
    assert client is not None
    return access.issue(client, Fields(body or {}, ""), NOW)[0]


def test_a_key_is_good_for_its_scopes() -> None:
    """Each key is admitted for its own scope only, admin for every scope, and an unknown key for none."""
    allowed = {key: {s for s in Scope if control().client([key], s, NOW)} for key in ("alpha", "beta", "gamma", "x")}
    assert allowed == {"alpha": {Scope.TALK}, "beta": {Scope.METRICS}, "gamma": set(Scope), "x": set()}


def test_without_keys_everybody_is_admitted() -> None:
    """A host without keys admits every client, as an unnamed tenant."""
    client = AccessControl().client(["anything"], Scope.METRICS, NOW)
    assert client == Client(None)
    assert client.tenant == ""


def test_a_secret_is_good_on_every_host_until_it_expires() -> None:
    """A client secret is accepted by another host with the same keys, for ten minutes by default, and only to talk."""
    secret = issued(control())
    assert secret.startswith(PREFIX)
    other = control()
    client = other.client([secret], Scope.TALK, NOW + 599)
    assert client is not None
    assert client.tenant == digest_of("alpha")[:16]
    assert other.client([secret], Scope.TALK, NOW + 600) is None
    assert other.client([secret], Scope.METRICS, NOW) is None
    assert other.client([secret], Scope.ADMIN, NOW) is None


def test_a_secret_carries_its_session() -> None:
    """The settings in the request for a secret are those with which its session begins."""
    session = {"type": "realtime", "instructions": "Be brief."}
    access = control()
    client = access.client([issued(access, {"session": session})], Scope.TALK, NOW)
    assert client is not None
    assert client.session == session


def test_a_foreign_secret_is_refused() -> None:
    """A secret of a system with another signing key, of a removed key, or of a host without signing key is refused."""
    secret = issued(control())
    assert control(signing_key="t" * 32).client([secret], Scope.TALK, NOW) is None
    assert control("beta scope=talk").client([secret], Scope.TALK, NOW) is None
    assert control(signing_key="").client([secret], Scope.TALK, NOW) is None
    assert control("alpha scope=metrics").client([secret], Scope.TALK, NOW) is None
    unsigned = issued(control(signing_key=""))
    assert control(signing_key="").client([unsigned], Scope.TALK, NOW) is None


@given(st.data())
def test_a_changed_secret_is_refused(data: st.DataObject) -> None:
    """A secret in which any one character was replaced, removed or added is refused, and raises no error."""
    secret = issued(control())
    at = data.draw(st.integers(0, len(secret) - 1))
    sign = data.draw(st.characters())
    changed = data.draw(st.sampled_from([secret[:at] + secret[at + 1 :], secret[:at] + sign + secret[at:]]))
    if changed != secret:
        assert control().client([changed], Scope.TALK, NOW) is None


@given(st.text())
def test_no_text_is_accepted_by_chance(text: str) -> None:
    """Any text behind the prefix of a secret is refused without an error."""
    assert control().client([PREFIX + text, text], Scope.TALK, NOW) is None


def test_a_longer_life_cannot_be_written_into_a_secret() -> None:
    """A client secret is refused if its expiry was moved later, because the signature does not match any more."""
    content, _, signature = issued(control()).removeprefix(PREFIX).partition(".")
    document = json.loads(base64.urlsafe_b64decode(content + "=="))
    document[1] += 10_000
    longer = base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()
    assert control().client([f"{PREFIX}{longer}.{signature}"], Scope.TALK, NOW) is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "expires_after.anchor"),
        ({"session": {"instructions": "x" * MAX_SESSION_JSON}}, "session"),
    ],
)
def test_wrong_requests_for_a_secret_are_refused(body: dict[str, Any], param: str) -> None:
    """A request for a secret with a wrong expiry or a too large session raises an error that names the field."""
    with pytest.raises(CallerError) as refused:
        issued(control(), body)
    assert refused.value.param == param


def test_a_key_has_a_maximum_of_sessions() -> None:
    """A key may have as many sessions as its own limit, or the setting's. The end of one makes room."""
    access = control("alpha sessions=2, beta", sessions_per_key=1)
    alpha, beta = (access.client([key], Scope.TALK, NOW) for key in ("alpha", "beta"))
    assert alpha
    assert beta
    assert [bool(access.enter(alpha, 0.0)) for _ in range(3)] == [False, False, True]
    assert [bool(access.enter(beta, 0.0)) for _ in range(2)] == [False, True]
    access.leave(alpha)
    assert not access.enter(alpha, 0.0)


def test_a_key_has_a_maximum_of_new_sessions_in_a_minute() -> None:
    """With 30 new sessions a minute, the 31st at once must wait two seconds."""
    access = control("alpha per_minute=30")
    client = access.client(["alpha"], Scope.TALK, NOW)
    assert client
    for _ in range(30):
        assert access.enter(client, 5.0) is None
        access.leave(client)
    refusal = access.enter(client, 5.0)
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(2.0)
    assert access.enter(client, 7.01) is None


def test_an_address_has_its_places() -> None:
    """One address has `sessions_per_address` sessions, with or without keys. Unknown addresses are not limited."""
    access = AccessControl((), AccessSettings(sessions_per_address=2))
    one, other, unknown = Client(None, address="10.0.0.1"), Client(None, address="10.0.0.2"), Client(None)
    assert [bool(access.enter(one, 0.0)) for _ in range(3)] == [False, False, True]
    assert not access.enter(other, 0.0)
    assert not any(access.enter(unknown, 0.0) for _ in range(10))
    access.leave(one)
    assert not access.enter(one, 0.0)


def test_a_refused_session_is_not_counted() -> None:
    """A session that the key or the address may not have takes no place of the other."""
    access = control("alpha scope=talk sessions=1, beta scope=talk sessions=2", sessions_per_address=2)
    alpha, beta = (access.client([key], Scope.TALK, NOW) for key in ("alpha", "beta"))
    assert alpha
    assert beta
    here = [replace(client, address="10.0.0.1") for client in (alpha, beta)]
    assert [bool(access.enter(here[0], 0.0)) for _ in range(2)] == [False, True]
    assert [bool(access.enter(here[1], 0.0)) for _ in range(2)] == [False, True]
    elsewhere = replace(beta, address="10.0.0.2")
    assert [bool(access.enter(elsewhere, 0.0)) for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        (" 10.0.0.1 ", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::7]", "2001:db8:1:2::/64"),
        ("", ""),
        ("unknown", ""),
        ("10.0.0.1:80", ""),
    ],
)
def test_addresses_of_one_client_are_one_network(address: str, network: str) -> None:
    """IPv6 addresses count by their first 64 bits, which one machine has for itself."""
    assert network_of(address) == network
