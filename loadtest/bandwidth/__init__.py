"""Measurement of a conversation's network traffic: the code of `rejoinder load bandwidth`.

The package computes bytes and packets from header sizes, measures them on a virtual Ethernet pair, and compares both
with the latency guide's bandwidth tables. It imports `rejoinder.core` and `rejoinder.store` only. `loadtest.capacity`
and the command line import it. Start at `run.measure`, then read `formula` and `rows`.
"""
