"""The operator's record of each turn: one JSON line a turn in the replica's log; what was said only if asked for."""

from __future__ import annotations

import json
import logging

logger = logging.getLogger("rejoinder.journal")

# Callers' words are personal data: they stay out of logs unless the operator lowers the log level.
SPOKEN = frozenset({"text"})


class LogJournal:
    """`actors.stages.ports.Journal` over logging."""

    def write(self, kind: str, fields: dict[str, object]) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", json.dumps({"kind": kind, **fields}, default=str))
        else:
            shown = {name: value for name, value in fields.items() if name not in SPOKEN}
            logger.info("%s", json.dumps({"kind": kind, **shown}, default=str))
