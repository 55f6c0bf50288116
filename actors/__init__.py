"""The asynchronous shell of a conversation: sessions, and the tasks that carry out what the core decides.

Start reading at `session.py` (one conversation) and `host.py` (all conversations of one process). `deployments` and
everything above it may import this package; it imports `rejoinder.core` and `rejoinder.store` only.
"""
