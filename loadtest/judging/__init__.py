"""Verdicts at 95% confidence, and the report. Start at `verdicts.py`."""
