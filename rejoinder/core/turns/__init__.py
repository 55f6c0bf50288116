"""Turn-taking: the turn machine, its events and commands, and the decisions it asks for.

Start at `machine.py`, the table of states and events. `actors.turn_taking` carries its commands out.
"""
