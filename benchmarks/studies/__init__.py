"""Offline studies of the engines, each run with `python -m benchmarks.studies.NAME`."""
