"""Settings of openings: prepared phrases with which a reply begins before the language model answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from rejoinder.core.settings.section import Section

Words = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class Opening(Section):
    """Prepared first words of a reply. They must be a suitable beginning for any answer of the language model."""

    say: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    """Text to speak. It is synthesized when a host starts."""
    when: Annotated[tuple[Words, ...], Field(max_length=32)] = ()
    """Words or phrases. The opening is used if the caller's words contain one of them.
    Empty: it is used for every text of the caller that ends with a question mark.
    """


Openings = Annotated[tuple[Opening, ...], Field(max_length=32)]
"""Openings in order of preference."""
