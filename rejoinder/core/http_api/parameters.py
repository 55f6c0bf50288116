"""Parameters of a request: which are honoured, which change nothing, and which are refused by name.

Nothing is ignored in silence: a parameter is honoured, is in the documented list of those that change nothing
(docs/how-to/stage-http.md), has its neutral value, or is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rejoinder.core.wire.fields import Fields, refuse


def check_names(fields: Fields, honoured: frozenset[str], ignored: frozenset[str], neutral: Mapping[str, Any]) -> None:
    """Raise CallerError for a parameter that the route does not know, or does not support with its value.

    Args:
        fields: The parameters.
        honoured: Names of the parameters that the route reads.
        ignored: Names of the parameters that change nothing, whatever their value is.
        neutral: Names of parameters that are not supported, with the value that asks for nothing. Null does so, too.
    """
    for name in sorted(fields.keys() - honoured - ignored):
        value = fields.raw(name)
        if name in neutral:
            if value is None or value == neutral[name]:
                continue
            remedy = f"Leave it out or send {neutral[name]!r}."
            raise refuse(f"{name} is not supported.", name, code="unsupported_parameter", remedy=remedy)
        raise refuse(f"Unknown parameter: {name[:80]!r}.", name[:80], code="unknown_parameter", remedy="Leave it out.")
