"""Models of the audio input: voice activity, end of turn and noise suppression. Start at `silero.py`."""
