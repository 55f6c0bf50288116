"""Worker processes on the nodes of a Ray cluster: one actor for each worker, spread over the nodes.

The actor starts `loadtest.generator.worker` on its node and forwards the worker's output. Measurements therefore come
from the same program as on one machine. The nodes' clocks only have to agree on the start of the run, for which NTP
suffices. Times of two nodes are never subtracted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from loadtest.generator.assignment import WorkerAssignment
from rejoinder.core.errors import ConfigError


class RemoteWorker:
    """Ray actor that runs one worker process on its node."""

    def run(self, document: dict[str, Any]) -> Iterator[str]:
        """Start the worker process, send it the assignment `document`, and yield its output lines.

        The worker process exits when the process of this actor ends.
        """
        command = [sys.executable, "-m", "loadtest.generator.worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None  # noqa: PT018  # both are pipes
            process.stdin.write(json.dumps(document) + "\n")
            process.stdin.flush()
            for line in process.stdout:  # noqa: UP028  # Ray drives this with send(), which a file does not have
                yield line


async def report_lines(assignment: WorkerAssignment, address: str) -> AsyncGenerator[dict[str, Any], None]:
    """Start a worker on a Ray cluster and yield its reports as JSON documents. Closing the generator kills the worker.

    Args:
        assignment: Calls that the worker makes.
        address: HOST:PORT of the Ray cluster.

    Raises:
        ConfigError: No Ray cluster answers at `address`.
    """
    import ray  # imported here because a generator on one machine does not need Ray

    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError) as error:
            remedy = "Give HOST:PORT of the Ray head, and set Ray's token if the cluster requires one."
            raise ConfigError(
                f"no Ray cluster answers at {address} ({error}).", remedy, field="--set ray_address"
            ) from None
    worker = ray.remote(RemoteWorker).options(num_cpus=0, scheduling_strategy="SPREAD").remote()
    try:
        stream = worker.run.options(num_returns="streaming").remote(assignment.document())
        async for reference in stream:
            yield json.loads(await reference)
    finally:
        ray.kill(worker)
