"""Settings of telephone calls."""
