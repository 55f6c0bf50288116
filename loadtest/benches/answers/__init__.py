"""Spoken-style questions with rules that judge the answers: the test set, and a development set for prompts."""
