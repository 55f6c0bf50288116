"""Tests of spoken text: what a voice says for the written text of a reply."""
