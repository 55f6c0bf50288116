"""Published budgets, hardware tables and the arithmetic of capacity plans.

Start at `budgets.py` (latency tiers) and `sizing.py` (replicas and machines).
"""
