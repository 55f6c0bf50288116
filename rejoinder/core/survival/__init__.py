"""Survival of calls: what is stored of a conversation, who may resume it, and what goes on after a resume."""
