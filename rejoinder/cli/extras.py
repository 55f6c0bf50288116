"""Check for the optional packages that some commands need."""

from __future__ import annotations

import importlib.util

from rejoinder.core.errors import ConfigError

LOAD_PACKAGES = ("hdrh", "matplotlib", "picows", "pylibsrtp", "scipy", "simpy")
"""Modules of the extra `load` in pyproject.toml that the base install lacks."""


def need_load_extra() -> None:
    """Raise ConfigError if a package of the extra `load` is not installed.

    Call it in a command's body, so that `--help` works without the extra.
    """
    missing = [name for name in LOAD_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"packages are missing: {', '.join(missing)}.",
            "Run `pip install -e '.[load]'` in the checkout.",
            field="load",
        )
