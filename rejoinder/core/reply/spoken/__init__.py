"""Spoken text: turns the written text of a reply into the words that a person would say.

`hidden.py` removes text that no caller may see (reasoning, tool syntax). `reader.py` reads the written words one by one
and returns, for each, the words to speak. It asks the rules in `markup.py`, `quantities.py`, `calendar.py`,
`identifiers.py` and `prose.py`, with the tables of one language (`language.py`). The segmenter in the parent package
cuts the result into segments for the voice.
"""
