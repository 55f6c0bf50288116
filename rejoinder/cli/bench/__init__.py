"""`rejoinder bench`: one module for each measurement. Start reading at `app.py`, which defines the commands."""
