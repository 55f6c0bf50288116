"""Voice activity, turn detection and noise suppression models. Start at `silero.py`."""
