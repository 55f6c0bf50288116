"""Settings of the session journal, with which calls survive their host."""
