"""`python -m benchmarks.frameworks`: the same as `rejoinder load peers`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvloop

from benchmarks.frameworks.comparison import CACHE, compare, diary_of, forget_diary, in_order, load_rows, save_rows
from benchmarks.frameworks.contestants import named
from benchmarks.frameworks.table import print_table


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Measure what is asked for, and print the table of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a row's name; repeatable")
    parser.add_argument("--again", action="store_true", help="measure those rows anew")
    parser.add_argument("--rows", type=Path, default=CACHE / "rows.json", help="where finished rows are kept")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    contestants = named(tuple(options.only))
    finished = load_rows(options.rows)
    if options.again:
        for contestant in contestants:
            finished.pop(contestant.name, None)
            forget_diary(diary_of(options.rows, contestant))
    uvloop.run(compare(contestants, finished, options.rows, _tell))
    rows = in_order(finished)
    print_table(rows)
    if options.json:
        save_rows(options.json, rows)


if __name__ == "__main__":
    main()
