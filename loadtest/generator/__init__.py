"""The load generator: worker processes that hold the calls, self-checks, and the search for the capacity limit.

The package imports `rejoinder.core`, `rejoinder.store` and the other `loadtest` packages except the capacity model and
the benchmarks, which import it, as the command line does. Start at `run.py`, then read `workers.py` (the parent
process) and `worker.py` (one worker process).
"""
