"""`rejoinder plan`: sources of a plan's figures, the command and its tables. Start at `command.py`."""
