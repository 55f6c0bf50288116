"""Measures of time and quality: a turn's waterfall, word error rate, audio watermarks and emulated service times.

Start at `waterfall.py`. This package imports only `rejoinder.core.audio`. Most of the core, the engines and the load
test import this package.
"""
