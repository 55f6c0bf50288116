"""Turn-taking: when the caller's turn ends, and when the agent replies, pauses and stops.

Start at `machine.py`, which explains the states, events and commands of the turn machine. `speech_detector.py` makes
its speech edges, `endpointing.py` decides how much silence ends a turn, and `barge_in.py` classifies speech over a
reply. Within the core only `wire` imports this package. `actors.turn_taking` carries the commands out.
"""
