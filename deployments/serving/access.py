"""Reads the keys of a host or a launcher from the environment and from a file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import ApiKey, parse_keys
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.access.tls import CERTIFICATE_ENV
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.settings.settings import Settings


def keys_here(settings: Settings, environment: Mapping[str, str] = os.environ) -> tuple[ApiKey, ...]:
    """Return the keys of the settings, of the variable and of the file, each key once.

    Raises:
        ConfigError: The variable or the file is there and has no key, or an entry is wrong.
    """
    access, variable = settings.access, settings.host.api_keys_env
    keys = [key for entry in access.keys for key in parse_keys(entry, "args.access.keys")]
    if variable in environment:
        keys += parse_keys(environment[variable], variable)
    path = Path(access.keys_file).expanduser()
    if access.keys_file and (path.exists() or not access.keys):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}).", field="args.access.keys_file") from error
        keys += parse_keys(text, str(path))
    return tuple({key.digest: key for key in reversed(keys)}.values())[::-1]


def open_access(
    settings: Settings, environment: Mapping[str, str] = os.environ, *, bind: str = "127.0.0.1"
) -> AccessControl:
    """Return the access control of a host.

    Args:
        settings: The settings.
        environment: Environment variables.
        bind: Address on which Serve listens; "" for all addresses.

    Raises:
        ConfigError: The keys cannot be read. Or there are no keys, although the settings require them or other machines
            can reach the host. Or the settings name a certificate that the node's HAProxy does not use.
    """
    keys = keys_here(settings, environment)
    if not keys and not settings.access.required:
        check_bind(bind, settings)
    if settings.access.required and not keys:
        raise ConfigError(
            "it is true, and this host has no key.",
            f"Set {settings.host.api_keys_env} on this node.",
            field="args.access.required",
        )
    if settings.tls.certificate and CERTIFICATE_ENV not in environment:
        raise ConfigError(
            "the HAProxy of this node does not have the certificate, so calls would not be encrypted.",
            f"Start the node with {' '.join(f'{name}={value}' for name, value in settings.tls.variables().items())}.",
            field="args.tls.certificate",
        )
    signing_key = environment.get(settings.access.signing_key_env, "") or settings.access.signing_key
    return AccessControl(keys, settings.access.model_copy(update={"signing_key": signing_key}))


def check_bind(bind: str, settings: Settings) -> None:
    """Raise ConfigError if other machines reach the address `bind`, unless `access.insecure` is true.

    Call this if there are no keys. `rejoinder serve` calls it before it starts anything, and each host when it starts,
    because `serve deploy` and `serve run` start hosts too.
    """
    if not (is_loopback(bind) or settings.access.insecure):
        raise ConfigError(
            f"everyone who reaches {bind or 'this machine'} could call, because no key is set.",
            f"Set {settings.host.api_keys_env} or access.keys_file, or on a network that you trust access.insecure "
            "(--insecure).",
            field="http_options.host",
        )


def carrying_keys(settings: Settings, environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings with the launcher's keys as digests, for hosts on nodes that do not have them.

    The hosts then refuse to start without a key. They also get a signing key for client secrets, and the key that
    encrypts conversations in the session journal.

    Raises:
        ConfigError: The keys cannot be read.
    """
    keys = keys_here(settings, environment)
    signing_key = environment.get(settings.access.signing_key_env, "") or secrets.token_hex(32)
    update = {
        "keys": tuple(key.entry() for key in keys),
        "required": settings.access.required or bool(keys),
        "signing_key": signing_key,
    }
    journal_key = environment.get(settings.journal.key_env, "") or settings.journal.key
    telephony = settings.telephony
    auth_token = environment.get(telephony.twilio.auth_token_env, "") or telephony.twilio.auth_token
    secret = environment.get(telephony.webhook.secret_env, "") or telephony.webhook.secret
    telephony = telephony.model_copy(
        update={
            "twilio": telephony.twilio.model_copy(update={"auth_token": auth_token}),
            "webhook": telephony.webhook.model_copy(update={"secret": secret}),
        }
    )
    return settings.model_copy(
        update={
            "access": settings.access.model_copy(update=update),
            "journal": settings.journal.model_copy(update={"key": journal_key}),
            "telephony": telephony,
        }
    )
