"""Choice of the journals of a session, which every host makes in the same way (rendezvous hashing).

Each session ranks the nodes by a hash of both names. Its journals are those of the first nodes. If a node comes or
goes, only the sessions that rank it first are affected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(session: str, nodes: Iterable[str]) -> list[str]:
    """Return the nodes in the order in which the session prefers their journals."""
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{session} {node}".encode()).digest())
