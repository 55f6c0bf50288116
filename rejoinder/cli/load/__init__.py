"""`rejoinder load`: load runs, searches and the tables of bandwidth and concurrency. Start at `app.py`."""
