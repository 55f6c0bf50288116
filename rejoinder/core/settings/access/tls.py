"""Settings of TLS for callers, and the variables by which a node's HAProxy gets them.

HAProxy terminates TLS. Ray starts it on each node, before any host runs, so it gets its settings from the environment
of the node: `rejoinder serve` sets the variables on a head that it starts, and `rejoinder launch` writes them.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Section

CERTIFICATE_ENV = "REJOINDER_TLS_CERTIFICATE"
"""Variable with the file of the certificate."""
KEY_ENV = "REJOINDER_TLS_KEY"
"""Variable with the file of the private key."""
PORT_ENV = "REJOINDER_TLS_PORT"
"""Variable with the port for TLS."""


class TlsSettings(Section):
    """TLS between callers and HAProxy (docs/how-to/tls.md)."""

    certificate: str = ""
    """Path of a PEM file with the certificate and its chain, on each node that callers connect to. Empty: no TLS."""
    key: str = ""
    """Path of a PEM file with the private key. Empty: it is in the file of the certificate."""
    port: int | None = Field(None, ge=1, le=65535)
    """Port for TLS beside `http_options.port`, which then stays in plaintext, for health checks within a cluster. None:
    `http_options.port` speaks TLS only.
    """

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        if not self.certificate and (self.key or self.port):
            raise ValueError("tls.certificate is missing: without it there is no TLS, and key and port have no use")
        return self

    def variables(self) -> dict[str, str]:
        """Return the environment variables of a node with these settings, by name; none without TLS."""
        if not self.certificate:
            return {}
        return {
            CERTIFICATE_ENV: self.certificate,
            **({KEY_ENV: self.key} if self.key else {}),
            **({PORT_ENV: str(self.port)} if self.port else {}),
        }
