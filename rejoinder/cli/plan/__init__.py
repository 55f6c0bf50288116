"""`rejoinder plan`: the command (`command.py`), the sources of its figures, and its tables."""
