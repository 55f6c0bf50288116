"""The configuration's part about how answers may begin before they are known."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from rejoinder.core.settings.section import Section

Words = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class Opening(Section):
    """Words with which an answer may begin, whatever it will be. `when`: words of the caller's that it fits, any of
    them; none: every question.
    """

    say: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    when: Annotated[tuple[Words, ...], Field(max_length=32)] = ()


Openings = Annotated[tuple[Opening, ...], Field(max_length=32)]
"""In order of preference."""
