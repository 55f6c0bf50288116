"""Carries out the commands of the turn machine (`rejoinder.core.turns`) and detects barge-in.

Start at `command_executor.py`. The topmost package of `actors`: only `actors.session` imports it.
"""
