"""Carries out the commands of the turn machine (`rejoinder.core.turns`) and detects barge-in.

Start at `command_executor.py`. It imports the other packages of `actors` and the core; only the modules of `actors`
import it.
"""
