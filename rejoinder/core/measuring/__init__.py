"""Measures of quality and time: the waterfall of a turn, word error rate, audio watermarks and service-time curves.

Start at `waterfall.py`.
"""
