"""`rejoinder plan`: the command (`command.py`), the sources of its figures (`sources.py`), its tables (`tables.py`)."""
