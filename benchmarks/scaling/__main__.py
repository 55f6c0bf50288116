"""Command line of the scaling simulations: `python -m benchmarks.scaling STUDY`."""

from __future__ import annotations

import argparse

from benchmarks.scaling import autoscaling_study, hedging_study


def main() -> None:
    """Print the tables of the study that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    studies = parser.add_subparsers(dest="study", required=True)
    studies.add_parser("autoscaling", help="a day, a spike and a loss of nodes, with our policies and Serve's")
    hedging = studies.add_parser("hedging", help="hedges and circuits of many hosts that share many replicas")
    hedging.add_argument("--requests", type=int, default=1_000_000, help="requests of the largest row")
    hedging.add_argument("--seed", type=int, default=1, help="seed of the random numbers")
    options = parser.parse_args()
    if options.study == "autoscaling":
        lines = autoscaling_study.report()
    else:
        lines = hedging_study.report(options.requests, options.seed)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
