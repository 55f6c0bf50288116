"""Capacity planning: the latency guide's limits and tables as data, and the arithmetic of replicas and nodes.

Start at `budgets.py` (latency tiers) and `sizing.py` (replicas and nodes). This package imports only
`rejoinder.core.measuring`. `loadtest.capacity`, `cluster` and the CLI use this package.
"""
