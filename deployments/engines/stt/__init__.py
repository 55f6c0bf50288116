"""Speech-to-text engines, and the cascade of a fast recognizer and a more accurate one. Start at `cascade.py`."""
