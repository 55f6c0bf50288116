"""Holds the calls of a load run on several processes and searches for the limit. Start at `run.py`."""
