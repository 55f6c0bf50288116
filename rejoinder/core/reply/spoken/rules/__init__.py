"""Rules of spoken text, a module for each kind of word. A rule turns a `View` into a `Reading`, or returns None."""
