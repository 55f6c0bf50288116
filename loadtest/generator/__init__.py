"""The load generator: worker processes that make the calls, self-checks, and the search for the capacity limit.

The package imports `rejoinder.core`, `rejoinder.store` and the other `loadtest` packages except the capacity model and
the benches. Those two and the command line import it. Start at `run.py`, then read `workers.py` (the parent process)
and `worker.py` (one worker process).
"""
