"""The command line `rejoinder`: it parses arguments and prints, and decides nothing. Start at `main.py`.

May import everything; nothing imports it.
"""
