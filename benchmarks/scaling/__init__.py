"""Simulations of scaling in virtual time, with the policies and limits that the product runs.

`python -m benchmarks.scaling` prints them. `docs/results/scale.md` has the results.
"""
