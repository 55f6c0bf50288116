"""Rules of spoken text, one module per kind of word. A rule returns a `Reading` (spoken form) for a `View`, or None."""
