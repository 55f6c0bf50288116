"""Tests of real clients against a real system."""
