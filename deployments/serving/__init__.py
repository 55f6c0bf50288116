"""What every deployment needs of Ray Serve: handles, routing, autoscaling, metrics and HTTP routes.

Start at `replica.py` and `handles.py`. Imports no engine.
"""
