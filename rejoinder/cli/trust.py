"""The option --ca of the commands that call a server: which certificate authority they trust."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from rejoinder.core.errors import ConfigError

AUTHORITY = "SSL_CERT_FILE"
"""Variable with the file of trusted authorities. OpenSSL reads it, and every client library of ours by it."""

Ca = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help=f"PEM file with the only certificate authority to trust for wss://. Also: {AUTHORITY}."
    ),
]


def trust(ca: Path | None) -> None:
    """Trust only the authority in the file `ca`, in this process and those that it starts. None changes nothing.

    Raises:
        ConfigError: The file cannot be read.
    """
    if ca is None:
        return
    if not os.access(ca, os.R_OK):
        raise ConfigError(f"{ca} cannot be read.", "Name the file that `rejoinder serve --tls` prints.", field="--ca")
    os.environ[AUTHORITY] = str(ca)
