"""From a finished turn to the last audible sample of its reply.

Holds replies, speculative replies, prompts, fillers and speech output. Start at `replies.py`, then `reply.py`.
Imports `actors.listening` and `actors.stages`; `actors.turn_taking` imports it.
"""
