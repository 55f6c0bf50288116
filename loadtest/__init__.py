"""Load generator, capacity planner and benches. They call the system over its public WebSocket, like any client.

- `scenario`, `callers`, `generator`, `results`, `judging`: run simulated calls and judge the result.
- `capacity`: predict how many sessions a configuration carries.
- `bandwidth`: measure bytes and packets on the network.
- `benches`: experiments on single features.

Start at `generator/run.py`. The package imports `rejoinder.core` and `rejoinder.store` only. The command line and
`benchmarks` import it.
"""
