"""The stages without Ray Serve: in one process, behind a bare host, or without a network.

Start at `in_process.py`. Used by the inline voice-activity detector, by benchmarks and by tests.
"""
