"""Settings of calls over WebRTC: addresses and ports of the media, servers for NAT traversal, and the Opus encoder."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rejoinder.core.settings.section import Count, Fraction, Positive, Section

_ICE_URL = re.compile(
    r"(?:stuns?|turns?):(?:[^\s?:\[\]]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?(?:\?transport=(?:udp|tcp))?"
)


def _check_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address. Write it as 203.0.113.5: media has no host names") from None


def _check_ice_url(url: str) -> str:
    if not _ICE_URL.fullmatch(url):
        raise ValueError(f"{url!r} is not the address of a STUN or TURN server: write turn:turn.example.com:3478")
    return url


Address = Annotated[str, AfterValidator(_check_address)]


class IceServer(Section):
    """STUN or TURN server that clients use (docs/how-to/webrtc.md)."""

    urls: tuple[Annotated[str, AfterValidator(_check_ice_url)], ...] = Field(min_length=1, max_length=8)
    """Addresses, such as `turn:turn.example.com:3478` or `turns:turn.example.com:5349?transport=tcp`."""
    username: str = ""
    """User name for TURN with a fixed password."""
    credential_env: str = ""
    """Environment variable of each host with the password of `username`."""
    secret_env: str = ""
    """Environment variable of each host with the secret that it shares with the TURN server (coturn's
    `static-auth-secret`). Each client then gets a user name and password that expire after `credential_ttl_s`.
    """
    credential_ttl_s: Positive = 86_400.0
    """Seconds for which a user name and password made with `secret_env` are valid."""

    @model_validator(mode="after")
    def _one_kind_of_credential(self) -> IceServer:
        if self.secret_env and (self.username or self.credential_env):
            raise ValueError("secret_env excludes username and credential_env: remove the one or the others")
        if bool(self.username) != bool(self.credential_env):
            raise ValueError("username and credential_env belong together: set both, or secret_env")
        if any(url.startswith("turn") for url in self.urls) and not (self.secret_env or self.credential_env):
            raise ValueError("a TURN server needs credentials: set secret_env, or username and credential_env")
        return self


class WebRtcSettings(Section):
    """Calls over WebRTC, `POST /v1/realtime/calls`. They need the package's extra `webrtc` on the session hosts."""

    enabled: bool = True
    """Accept calls over WebRTC. Without the extra `webrtc` they are refused with status 501."""
    addresses: tuple[Address, ...] = ()
    """Addresses of a host on which it receives media. Empty: all its addresses except loopback."""
    advertise: tuple[Address, ...] = ()
    """Addresses that clients are told instead of `addresses`, for a host behind 1:1 NAT, such as a cloud machine with
    a public address. Ports are not translated. Suits a single host: all hosts advertise the same addresses.
    """
    port_min: int = Field(0, ge=0, le=65535)
    """First UDP port for media. 0: any free port. Each call has one port for each address."""
    port_max: int = Field(0, ge=0, le=65535)
    """Last UDP port for media. Hosts on one machine share the range."""
    stun: str = ""
    """STUN server of which a host learns its public address itself, such as `stun:stun.example.com:3478`. Empty: none.
    Each call then begins later by a request to this server.
    """
    ice_servers: tuple[IceServer, ...] = Field((), max_length=8)
    """STUN and TURN servers that the page at `/` and other clients are told."""
    ice_transport_policy: Literal["all", "relay"] = "all"
    """Paths that the page at `/` tries: `all`, or only those through a TURN server (`relay`)."""
    connect_timeout_s: float = Field(30, ge=1, le=300)
    """Seconds from the answer until the client must have connected. Otherwise its place is freed."""
    lost_after_s: float = Field(15, ge=2, le=300)
    """Seconds without any packet of the client after which its call ends."""
    opus_bitrate: int = Field(32_000, ge=6_000, le=128_000)
    """Average bit rate of the speech that is sent, in bits per second."""
    dtx: bool = True
    """Send nothing while the agent is silent, and ask clients to do the same. False: silence is sent, too."""
    fec: bool = True
    """Add a coarse copy of each packet to the next one (in-band FEC), if the client can use it after a loss."""
    expected_loss: Fraction = 0.05
    """Share of packets that the encoder expects to be lost. It decides how many bits FEC gets."""
    max_queue_s: float = Field(10, ge=1, le=60)
    """Seconds of a reply's audio that may wait to be sent. They are seldom more than `conversation.playout_lead_ms`."""
    max_waiting_events: Count = 1024
    """Maximum number of events of one client that wait to be handled. With more, the call ends."""

    @model_validator(mode="after")
    def _port_range(self) -> WebRtcSettings:
        if bool(self.port_min) != bool(self.port_max) or self.port_min > self.port_max:
            raise ValueError(
                "port_min and port_max are a range: set both, port_min not above port_max, or leave both 0"
            )
        if self.stun:
            _check_ice_url(self.stun)
        return self
