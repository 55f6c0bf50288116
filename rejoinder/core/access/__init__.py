"""Decisions about strangers: how much one connection may send and store, who may connect, and what a key allows.

Nothing here reads a clock, a file or the environment: the time, the keys and the bytes are passed in.
"""
