"""From measured load levels to a plan: calibration, queueing model, prediction and plan. Start at `plan.py`."""
