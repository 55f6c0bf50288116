"""Simulated and scripted callers, their sockets and their loudspeakers. Start at `simulated_caller.py`."""
