"""Tests of the whole session in one process, without Ray: real engines, or a stand-in for a language model's server."""
