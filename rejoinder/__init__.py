"""Rejoinder: real-time voice conversations on Ray Serve."""

__version__ = "0.1.0"
