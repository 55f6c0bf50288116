"""Rejoinder: self-hosted serving of real-time voice conversations on Ray Serve.

This package has three parts: `core` (the decisions, without I/O), `store` (the model files) and `cli` (the `rejoinder`
command). The conversations are in the top-level package `actors`, the Ray Serve deployments in `deployments`. Start
reading at ARCHITECTURE.md.
"""

__version__ = "0.1.0"
