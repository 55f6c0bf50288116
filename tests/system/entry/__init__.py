"""Tests of the entry of a real system: attacks of strangers, and TLS."""
