"""The checks of `rejoinder doctor`. Start at `examine.py`; each other module has the checks of one subject."""
