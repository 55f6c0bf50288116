"""Tests of the commands `rejoinder bench ...`."""
