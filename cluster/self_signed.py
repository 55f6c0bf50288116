"""Certificates for trying out TLS: an authority of one's own, and a certificate for this machine that it has signed."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rejoinder.core.settings.section import is_loopback

LIFETIME = timedelta(days=90)
RENEW_BEFORE = timedelta(days=7)
"""Rest of its lifetime below which a certificate is made again."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one server.

    Attributes:
        certificate: Its certificate.
        key: The private key, readable for its owner only.
        authority: The authority's certificate, which clients must trust.
    """

    certificate: Path
    key: Path
    authority: Path


def self_signed(folder: Path, names: Sequence[str], now: datetime | None = None) -> TlsFiles:
    """Return files with a certificate for these names. They are made if the folder has none that are still good.

    The authority's private key is not kept, so nobody can sign anything else with it.

    Args:
        folder: Folder of the files, which only its owner may enter.
        names: IP addresses and host names of the server.
        now: Time at which the certificate must be good; None for the present.
    """
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    now = now or datetime.now(UTC)
    if not _is_good(files, names, now):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(files, names, now)
    return files


def tls_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which `rejoinder serve` keeps the certificates that it makes."""
    state = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "rejoinder" / "tls"


def server_names(host: str) -> tuple[str, ...]:
    """Return the names and addresses at which clients reach a server of this machine that listens on `host`."""
    names = ["localhost", "127.0.0.1"]
    if not is_loopback(host):
        addresses = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries]
        names += [socket.gethostname(), host, *addresses]
    return tuple(dict.fromkeys(name for name in names if name != "0.0.0.0" and _is_name(name)))


def _is_name(text: str) -> bool:
    """Return True for an IPv4 address or a host name, False for IPv6 and hardware addresses."""
    return ":" not in text


def _is_good(files: TlsFiles, names: Sequence[str], now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        serialization.load_pem_private_key(files.key.read_bytes(), None)
        x509.load_pem_x509_certificate(files.authority.read_bytes())
    except (OSError, ValueError):
        return False
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.not_valid_after_utc - now > RENEW_BEFORE and set(extension.value) == set(_alternatives(names))


def _make(files: TlsFiles, names: Sequence[str], now: datetime) -> None:
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("Rejoinder, for trying out")
    authority = (
        _builder(issuer, issuer, authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(_name(names[0]), issuer, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(files.key, private)
    _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    _write(files.authority, authority.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, in place of an older one."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
