"""Ray Serve deployments: one module for each stage, the session hosts, and the application that joins them.

`app.py` is the entry point; read it first, then `session_host.py` and one stage, such as `stt.py`. The subpackages
contain what the deployments share (`serving`), the WebSocket transport (`transports`), the engines (`engines`) and
hosts without Ray (`local`). This package imports `actors`, `rejoinder.store` and `rejoinder.core`. Only `cluster`,
`benchmarks` and the command line import it.
"""
