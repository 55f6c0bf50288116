"""The commands `rejoinder launch ...`."""
