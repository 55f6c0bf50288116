"""From a finished turn to the last audible sample of its reply.

Contains replies, speculative replies, prompts, fillers and speech output. Start at `replies.py`, then `reply.py` and
`speech_output.py`. It imports `actors.listening`, `actors.stages` and the core; `actors.turn_taking` and the modules of
`actors` may import it.
"""
