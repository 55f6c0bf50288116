"""The asynchronous shell of a conversation: sessions, and the tasks that carry out what the core decides.

Start at `host.py` (all conversations of one process), then `session.py` (one conversation). The packages below it build
on each other in this order: `stages`, `listening`, `replying`, `turn_taking`. `deployments` and everything above it may
import this package. It imports `rejoinder.core` and `rejoinder.store` only.
"""
