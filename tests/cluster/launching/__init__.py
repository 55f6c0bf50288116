"""Tests of the launch kit: the description, the checks, and what is rendered from it."""
