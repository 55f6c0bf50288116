"""`rejoinder bench`: one module for each measurement. Start at `app.py`."""
