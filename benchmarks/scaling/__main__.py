"""Command line of the scaling simulations: `python -m benchmarks.scaling STUDY`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.scaling import autoscaling_study, controller_cpu, entry_study, hedging_study, sessions_study


def main() -> None:
    """Print the tables of the study that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    studies = parser.add_subparsers(dest="study", required=True)
    studies.add_parser("autoscaling", help="a day, a spike and a loss of nodes, with our policies and Serve's")
    hedging = studies.add_parser("hedging", help="hedges and circuits of many hosts that share many replicas")
    hedging.add_argument("--requests", type=int, default=1_000_000, help="requests of the largest row")
    hedging.add_argument("--seed", type=int, default=1, help="seed of the random numbers")
    sessions = studies.add_parser("sessions", help="talking sessions on 20 nodes")
    sessions.add_argument("callers", type=int, nargs="*", default=[1000, 5000, 10_000], help="numbers of callers")
    sessions.add_argument(
        "--cold",
        action="store_true",
        help="begin with two replicas of each stage and six hosts, not with what is needed",
    )
    controller = studies.add_parser("controller", help="CPU of Serve's controller, measured with stub replicas")
    controller.add_argument("--replicas", type=int, default=40, help="number of stub replicas")
    entries = studies.add_parser("entries", help="callers that three HAProxies refuse, compared with one pool")
    entries.add_argument("--callers", type=int, default=200_000, help="callers of each row")
    entries.add_argument("--seed", type=int, default=1, help="seed of the random numbers")
    for line in lines(parser.parse_args()):
        print(line, flush=True)


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Run the study that the options name, and yield its report line by line."""
    if options.study == "autoscaling":
        return autoscaling_study.report()
    if options.study == "hedging":
        return hedging_study.report(options.requests, options.seed)
    if options.study == "sessions":
        return sessions_study.report(tuple(options.callers), warm=not options.cold)
    if options.study == "entries":
        return entry_study.report(options.callers, options.seed)
    return controller_cpu.report(options.replicas)


if __name__ == "__main__":
    main()
