"""Tests of the certificates of `rejoinder serve --tls self-signed`, and of how the settings reach HAProxy."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cluster import haproxy
from cluster.environment import entry_variables
from cluster.self_signed import LIFETIME, self_signed, server_names, tls_folder
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.access import access, tls
from rejoinder.core.settings.settings import Settings, parse_settings


def test_a_certificate_is_kept_until_it_must_be_renewed(tmp_path: Path) -> None:
    """A second start uses the same files. Other names, damaged files and the end of its lifetime make new ones."""
    folder = tmp_path / "tls"
    files = self_signed(folder, ("localhost", "127.0.0.1"))
    first = files.certificate.read_bytes()
    assert self_signed(folder, ("localhost", "127.0.0.1")).certificate.read_bytes() == first
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert self_signed(folder, ("localhost",)).certificate.read_bytes() != first
    files.key.write_text("damaged")
    second = self_signed(folder, ("localhost",)).certificate.read_bytes()
    soon = datetime.now(UTC) + LIFETIME - timedelta(days=1)
    assert self_signed(folder, ("localhost",), soon).certificate.read_bytes() != second


def test_the_certificate_is_for_a_server_and_signs_nothing(tmp_path: Path) -> None:
    """The certificate has the server's names and cannot sign others. The authority's key is not kept."""
    files = self_signed(tmp_path, ("localhost", "127.0.0.1"))
    found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


def test_a_server_on_all_addresses_has_more_names() -> None:
    """A server on the loopback address is only called localhost; one on all addresses has the machine's names too."""
    assert server_names("127.0.0.1") == ("localhost", "127.0.0.1")
    names = server_names("0.0.0.0")
    assert len(names) > 2
    assert "0.0.0.0" not in names
    assert "voice.example" in server_names("voice.example")
    assert tls_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/rejoinder/tls")


def test_the_settings_become_the_variables_of_haproxy() -> None:
    """HAProxy gets the certificate and the trusted networks of the settings by the variables that it reads."""
    assert entry_variables(Settings()) == {}
    settings = parse_settings(
        {
            "tls": {"certificate": "/c.pem", "key": "/k.pem", "port": 8443},
            "access": {"trusted_proxies": ["10.0.0.0/8", "192.0.2.1"]},
        }
    )
    assert entry_variables(settings) == {
        haproxy.CERTIFICATE: "/c.pem",
        haproxy.KEY: "/k.pem",
        haproxy.TLS_PORT: "8443",
        haproxy.TRUSTED: "10.0.0.0/8,192.0.2.1",
    }
    assert (tls.CERTIFICATE_ENV, tls.KEY_ENV, tls.PORT_ENV) == (haproxy.CERTIFICATE, haproxy.KEY, haproxy.TLS_PORT)
    assert access.TRUSTED_ENV == haproxy.TRUSTED


@pytest.mark.parametrize("network", ["10.0.0.1/8", "balancer"])
def test_a_wrong_network_is_refused(network: str) -> None:
    """A trusted proxy that is not a network is refused by the settings, with its field."""
    with pytest.raises(ConfigError, match=r"access\.trusted_proxies"):
        parse_settings({"access": {"trusted_proxies": [network]}})
