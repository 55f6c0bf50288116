"""Run a load test in CI: serve with emulated engines, make calls, and exit with the verdict.

    python load_test.py --sessions 5 --for 30s --json result.json

Exit status: 0 PASS, 1 FAIL, 2 the test could not be run, 3 INVALID (this machine was too busy to measure), 4 UNDECIDED
(too few turns for the percentiles). Treat 1 and 2 as failures of your change; run again on 3; on 4 measure longer.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

REJOINDER = (sys.executable, "-m", "rejoinder.cli")
START_TIMEOUT_S = 240.0
COULD_NOT_BE_HELD = 2


def main() -> int:
    """Start the server, run the load test, stop the server, and return the load test's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", default="8123")
    parser.add_argument("--sessions", default="5")
    parser.add_argument("--for", dest="for_", default="30s")
    parser.add_argument("--tier", default="acceptable")
    parser.add_argument("--json", default="result.json")
    options = parser.parse_args()
    serve = (*REJOINDER, "serve", "--emulate", "guide-500", "--port", options.port, "--address", "local")
    server = subprocess.Popen(serve)
    try:
        if not healthy(server, f"http://127.0.0.1:{options.port}/healthz"):
            return COULD_NOT_BE_HELD
        load = (*REJOINDER, "load", "run", "--url", f"ws://127.0.0.1:{options.port}/v1", "--json", options.json)
        scenario = ("--sessions", options.sessions, "--for", options.for_, "--tier", options.tier)
        return subprocess.run((*load, *scenario), check=False).returncode
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def healthy(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until `url` answers, and return True.

    Return False if the server process ends, or after START_TIMEOUT_S (240 s).
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
