"""Settings of openings: held phrases with which a reply begins before the language model answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from rejoinder.core.settings.section import Section

Words = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class Opening(Section):
    """First words of a reply that fit whatever the language model answers."""

    say: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    """Text to speak. It is synthesized when a host starts."""
    when: Annotated[tuple[Words, ...], Field(max_length=32)] = ()
    """Words or phrases of the caller of which one must occur. Empty: the opening fits every question."""


Openings = Annotated[tuple[Opening, ...], Field(max_length=32)]
"""Openings in order of preference."""
