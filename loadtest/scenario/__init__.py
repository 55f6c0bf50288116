"""What a run does: scenario, schedule, clips and emulated networks. Start at `scenario.py`."""
