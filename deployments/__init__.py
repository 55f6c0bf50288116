"""The stages as Ray Serve deployments, one module each, and the application that joins them.

Start at `app.py`, then `session_host.py`. Imports `actors`, the store and the core; `cluster` imports it.
"""
