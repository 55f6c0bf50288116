"""The command line `rejoinder`. It parses arguments, calls the other packages and prints their results.

It may import every other package; no other package imports it. Start reading at `main.py`. Each command is one module,
or one package (`bench`, `load`, `plan`).
"""
