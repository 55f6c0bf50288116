"""The load generator and the capacity planner. They meet the system over the wire, as a user does.

Start at `generator/run.py`. Imports `rejoinder.core` and `rejoinder.store` only; the command line imports it.
"""
