"""Faults of the platform during live calls: what callers hear, and how soon new calls are answered again."""
