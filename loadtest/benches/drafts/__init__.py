"""Callers who pause in the middle of what they say: no audio of a draft that their going on discards may reach them."""
