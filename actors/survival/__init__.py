"""Survival of calls: records of running conversations and the store that keeps them."""
