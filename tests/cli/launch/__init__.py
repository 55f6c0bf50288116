"""Tests of the commands `rejoinder launch ...`."""
