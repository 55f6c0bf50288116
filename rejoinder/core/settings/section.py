"""Base model and shared types of the configuration: numbers, language codes, and addresses of servers."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_CODES = """
af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is it
ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn
so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh
"""
_SERVER_URL = re.compile(r"https?://(?:[^\s/:@\[\]]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?(?:/\S*)?", re.IGNORECASE)
WHISPER_LANGUAGES = frozenset(_CODES.split())
"""Codes of the languages that Whisper can transcribe. Source: `faster_whisper.tokenizer`."""


def check_language(code: str) -> str:
    """Return a code of WHISPER_LANGUAGES or "auto" unchanged.

    Raises:
        ValueError: It is another text, such as "en-US" or "English". The error names the fix.
    """
    if code == "auto" or code in WHISPER_LANGUAGES:
        return code
    base = code.replace("_", "-").split("-")[0].lower()
    fix = f"use {base}, without a region" if base in WHISPER_LANGUAGES else "use a code such as en or de, or auto"
    raise ValueError(f"{code!r} is not a language code of Whisper: {fix}")


def check_server_url(url: str) -> str:
    """Return the address of an HTTP server without blanks around it; "" stays "".

    Raises:
        ValueError: It has no scheme, no host, or a port that is not a number. The error names the fix.
    """
    url = url.strip()
    if not url:
        return url
    if not _SERVER_URL.fullmatch(url):
        raise ValueError(f"{url!r} is not an address of an HTTP server: write http://HOST:PORT/v1 or https://HOST/v1")
    return url


def check_listening_host(host: str) -> str:
    """Return an IPv4 address or host name unchanged.

    Raises:
        ValueError: It is empty, an IPv6 address, or has a port. Ray Serve writes HOST:PORT into the configuration of
            HAProxy, which then takes a part of an IPv6 address for the port.
    """
    if _is_ipv6(host.strip("[]")):
        raise ValueError(f"{host!r} is an IPv6 address, which Ray Serve cannot listen on: use IPv4, such as 0.0.0.0")
    if not host or any(sign in host for sign in ":/ "):
        raise ValueError(f"{host!r} is not an address to listen on: use an IPv4 address such as 0.0.0.0 or 127.0.0.1")
    return host


def is_loopback(host: str) -> bool:
    """Return True if only programs of the same machine reach a server that listens on this address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Language = Annotated[str, AfterValidator(check_language)]
ServerUrl = Annotated[str, AfterValidator(check_server_url)]
ListeningHost = Annotated[str, AfterValidator(check_listening_host)]


class Section(BaseModel):
    """Base of every section of the configuration.

    Unknown keys are refused and values are frozen. The docstring below a field is the field's description, from which
    the settings reference is generated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
