"""The records of a run: turns, histograms and the final result. Start at `result.py`."""
