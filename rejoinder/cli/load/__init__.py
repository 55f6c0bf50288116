"""`rejoinder load`: load tests, and checks of the latency guide's tables of bandwidth and concurrency.

Start reading at `app.py`, which defines the commands.
"""
