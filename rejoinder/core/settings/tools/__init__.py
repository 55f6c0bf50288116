"""Settings of the tools that the server itself calls."""
