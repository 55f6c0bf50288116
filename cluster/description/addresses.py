"""Names and addresses in a launch description, and the messages for those that cannot work."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator

_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([\w.-]*[A-Za-z0-9])?)?")

LONGEST_NAME = 40
"""Longest name of a cluster or group. KubeRay and Ray append up to 23 characters, and Kubernetes allows 63."""


def _dns_label(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text) or len(text) > LONGEST_NAME:
        raise ValueError(
            f"{text!r} is not a DNS label. Use lower-case letters, digits and hyphens, begin with a letter, "
            f"and use at most {LONGEST_NAME} characters"
        )
    return text


def _object_name(text: str) -> str:
    if not _DNS_SUBDOMAIN.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of a Kubernetes object. Use lower-case letters, digits, '-' and '.'")
    return text


def _host_address(text: str) -> str:
    """Return an IPv4 address or a host name unchanged. Raise ValueError for an IPv6 address or anything else."""
    version: int | None = None
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(text.strip("[]")).version
    if version == 6:
        raise ValueError(f"{text!r} is an IPv6 address, which Ray Serve's proxies do not support. Use an IPv4 address")
    if version is None and re.fullmatch(r"[0-9.]+", text):
        raise ValueError(f"{text!r} is not an IPv4 address. Write four numbers from 0 to 255")
    if version is None and not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is not an IPv4 address or host name. Leave out the scheme, user and port")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(
            f"{text!r} is not the name of an environment variable. Write the name, such as REJOINDER_API_KEYS; "
            "the value never belongs in this file"
        )
    return text


def _variable_value(text: str) -> str:
    if not text.isprintable() or "'" in text:
        raise ValueError("the value of an environment variable has a line break, a control character or a quote")
    return text


def _label_key(text: str) -> str:
    if not _LABEL_KEY.fullmatch(text) or len(text) > 253:
        raise ValueError(f"{text!r} is not a label. Use letters, digits, '-', '_' and '.'")
    return text


def _label_value(text: str) -> str:
    if not _LABEL_VALUE.fullmatch(text) or len(text) > 63:
        raise ValueError(f"{text!r} is not a value of a label. Use letters, digits, '-', '_' and '.', at most 63")
    return text


def is_ipv4(text: str) -> bool:
    """Return True for an IPv4 address, False for a host name."""
    return re.fullmatch(r"[0-9.]+", text) is not None


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
"""Name that is valid as a DNS label: a part of the names of Kubernetes objects."""
ObjectName = Annotated[str, AfterValidator(_object_name)]
"""Name of an existing Kubernetes object, such as a Secret or a claim."""
HostAddress = Annotated[str, AfterValidator(_host_address)]
"""IPv4 address or host name of a machine."""
VariableName = Annotated[str, AfterValidator(_variable)]
"""Name of an environment variable."""
VariableValue = Annotated[str, AfterValidator(_variable_value)]
"""Value of an environment variable, which stands between single quotes in the files of systemd and of shells."""
LabelKey = Annotated[str, AfterValidator(_label_key)]
"""Key of a label of Ray and Kubernetes."""
LabelValue = Annotated[str, AfterValidator(_label_value)]
"""Value of a label of Ray and Kubernetes."""
