"""Journal of turns for the operator: one JSON line for each turn in the replica's log."""

from __future__ import annotations

import json
import logging

logger = logging.getLogger("rejoinder.journal")

# Fields with the words of the conversation, which are personal data. They are logged only at the log level DEBUG.
SPOKEN = frozenset({"text"})


class LogJournal:
    """`actors.stages.ports.Journal` over `logging`, with the logger rejoinder.journal."""

    def write(self, kind: str, fields: dict[str, object]) -> None:
        """Log an entry as JSON: at level INFO without the field `text`, or at level DEBUG with all fields.

        Args:
            kind: Kind of event that the entry records, for example "replied".
            fields: Values of the entry, by name. Values that JSON cannot represent are written as strings.
        """
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s", json.dumps({"kind": kind, **fields}, default=str))
        else:
            public = {name: value for name, value in fields.items() if name not in SPOKEN}
            logger.info("%s", json.dumps({"kind": kind, **public}, default=str))
