"""The stages in one process, without Ray Serve. Start at `in_process.py`.

Session hosts use only `InlineVad` from `in_process.py`; tests use all of that module. The other modules exist for
benchmarks: `bare_host.py` for bandwidth, and `headless.py` with `fixed_engines.py` and `ideal_edges.py` for density.
The package may import the deployments, the engines and `actors`.
"""
