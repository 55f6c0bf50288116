"""`rejoinder load`: load tests, and the tables of bandwidth and concurrency.

Start reading at `app.py`, which defines the commands.
"""
