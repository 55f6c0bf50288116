"""Verdicts on a load run at 95% confidence, and the HTML report.

The package imports `rejoinder.core`, `loadtest.results` and `loadtest.callers`; the generator and the command line
import it. Start at `verdicts.py`.
"""
