"""What all deployments need of Ray Serve: replicas, handles, routing, autoscaling, metrics and HTTP routes.

Read `replica.py` and `handles.py` first: the two sides of a call to a stage. Every use of an undocumented internal of
Ray or uvicorn is in `compat.py`. This package imports no engine; all of `deployments` may import it.
"""
