"""Hedging, circuit breaking, deadline queues and admission, all as pure state machines.

Start at `hedging.py`. `actors.stages` performs what is decided here.
"""
