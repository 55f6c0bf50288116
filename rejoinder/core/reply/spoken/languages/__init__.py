"""Languages of spoken text: a table for each (`language.py` explains it), and the choice for a voice (`choice.py`)."""
