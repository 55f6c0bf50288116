"""`rejoinder load peers`: sessions a core, ours and two frameworks', by one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def peers(
    only: Annotated[list[str] | None, typer.Option(help="A row's name; repeatable. Without it, all rows.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure these rows anew; else finished ones are kept.")
    ] = False,
    rows_file: Annotated[Path | None, typer.Option("--rows", help="Where finished rows are kept.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the table; keys: loadtest/peers/comparison.py.")
    ] = None,
) -> None:
    """The largest number of sessions that one core holds with at most 50 ms added at p95 and no missed turn.

    Needs two idle cores and some ten minutes a row. The frameworks are installed into environments of their own in
    the user's cache at their first use.
    """
    import uvloop

    from loadtest.peers.comparison import CACHE, compare, diary_of, forget_diary, in_order, load_rows, save_rows
    from loadtest.peers.contestants import named
    from loadtest.peers.table import print_table

    keep = rows_file or CACHE / "rows.json"
    contestants = named(tuple(only or ()))
    finished = load_rows(keep)
    if again:
        for contestant in contestants:
            finished.pop(contestant.name, None)
            forget_diary(diary_of(keep, contestant))
    uvloop.run(compare(contestants, finished, keep, typer.echo))
    rows = in_order(finished)
    print_table(rows)
    if json_file:
        save_rows(json_file, rows)
