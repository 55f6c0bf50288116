"""Requests that need a tool, and the judgement of the calls that a language model makes for them."""
