"""Tools of a telephone call: hand the caller over to another number, and hang up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from rejoinder.core.wire.fields import Json

TRANSFER, HANG_UP = "transfer_call", "hang_up"
MAX_REASON = 500
"""Longest reason of a transfer that goes to the webhook, in characters."""


@dataclass(frozen=True, slots=True)
class PhoneProfile:
    """What the agent is told and may do in telephone calls.

    Attributes:
        instructions: System prompt of the calls; "" for the server's own.
        destinations: Numbers or addresses that a caller may be transferred to, by the names that the model uses.
        hang_up: True if the agent may end the call.
    """

    instructions: str = ""
    destinations: Mapping[str, str] = field(default_factory=dict)
    hang_up: bool = False

    def tools(self) -> list[Json]:
        """Return the tools of the calls, as a session declares them."""
        found: list[Json] = []
        if self.destinations:
            destination = {"type": "string", "enum": list(self.destinations)}
            properties = {"destination": destination, "reason": {"type": "string"}}
            parameters = {"type": "object", "properties": properties, "required": ["destination"]}
            text = "Hand the caller over to somebody else. Tell the caller first."
            found.append({"type": "function", "name": TRANSFER, "description": text, "parameters": parameters})
        if self.hang_up:
            text = "End the telephone call. Say goodbye first."
            parameters = {"type": "object", "properties": {}}
            found.append({"type": "function", "name": HANG_UP, "description": text, "parameters": parameters})
        return found


@dataclass(frozen=True, slots=True)
class Transfer:
    """Request of the model to hand the caller over.

    Attributes:
        tool_call: Id of the model's function call.
        destination: Name of the destination.
        number: Its number or address, from the settings.
        reason: Why, in the model's words; "" if it gave no reason.
    """

    tool_call: str
    destination: str
    number: str
    reason: str


def read_transfer(profile: PhoneProfile, item: Json) -> Transfer | None:
    """Return the transfer that a function call item requests; None if its destination is not among the profile's.

    Args:
        profile: The profile of the call.
        item: The item of the call of `TRANSFER`, from the wire.
    """
    try:
        arguments = json.loads(item.get("arguments") or "{}")
    except ValueError:
        return None
    name = arguments.get("destination") if isinstance(arguments, dict) else None
    if not isinstance(name, str) or name not in profile.destinations:
        return None
    reason = str(arguments.get("reason") or "")[:MAX_REASON]
    return Transfer(str(item.get("call_id", "")), name, profile.destinations[name], reason)
