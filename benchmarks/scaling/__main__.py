"""Command line of the scaling simulations: `python -m benchmarks.scaling STUDY`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from benchmarks.scaling import autoscaling_study

STUDIES: dict[str, tuple[str, Callable[[], Iterable[str]]]] = {
    "autoscaling": ("a day, a spike and a loss of nodes, with our policies and Serve's", autoscaling_study.report),
}


def main() -> None:
    """Print the tables of the study that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    studies = parser.add_subparsers(dest="study", required=True)
    for name, (about, _) in STUDIES.items():
        studies.add_parser(name, help=about)
    for line in STUDIES[parser.parse_args().study][1]():
        print(line, flush=True)


if __name__ == "__main__":
    main()
