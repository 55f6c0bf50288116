"""Reading and writing of the end-of-turn table: the weights and thresholds of endpointing, as a JSON file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from rejoinder.core.errors import ConfigError
from rejoinder.core.turns.end_of_turn import EndOfTurnTable

SHIPPED = Path(__file__).with_name("end_of_turn.json")
"""The product's own table."""


@cache
def load_table(file: str = "") -> EndOfTurnTable:
    """Return the table in a file; "" for the product's own.

    Raises:
        ConfigError: The file cannot be read or is not a table.
    """
    path = Path(file).expanduser() if file else SHIPPED
    try:
        return parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not an end-of-turn table: {error}.",
            "Make one with `python -m benchmarks.studies.calibrate_endpointing`.",
            field="args.endpointing.table",
        ) from error


def parsed(text: str) -> EndOfTurnTable:
    """Return the table in a JSON text; raise ValueError, KeyError or TypeError if it is not one."""
    read = json.loads(text)
    weights = {
        str(pieces): {str(name): float(weight) for name, weight in row.items()}
        for pieces, row in read["weights"].items()
    }
    thresholds = tuple(sorted((float(budget), float(threshold)) for budget, threshold in read["thresholds"]))
    if not thresholds or any(budget <= 0 for budget, _ in thresholds):
        raise ValueError("it needs thresholds for positive budgets")
    return EndOfTurnTable(weights, thresholds, dict(read["provenance"]))


def rendered(table: EndOfTurnTable) -> str:
    """Return the table as a JSON text that `parsed` reads."""
    made = {"provenance": table.provenance, "thresholds": table.thresholds, "weights": table.weights}
    return json.dumps(made, indent=1, default=dict) + "\n"
