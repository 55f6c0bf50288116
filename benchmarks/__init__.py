"""Comparisons and studies that are not part of the installed package. Run them from a checkout.

`frameworks` compares the number of sessions per CPU core with two other frameworks. `studies` measures the quality of
models and turn detection offline. Both may import every package. The product imports neither. Each entry point is a
`python -m benchmarks...` command, named in the package's or module's docstring.
"""
