"""Measurements of the engines on this machine, for `rejoinder load concurrency`. Start at `engine_cost.py`.

The package may import engines and the model store. The command line imports it.
"""
