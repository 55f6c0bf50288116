"""Speech-to-text engines and the cascade that joins two of them. Start at `cascade.py`."""
