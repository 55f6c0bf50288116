"""Measurements of the engines on this machine, for `rejoinder load concurrency`."""
