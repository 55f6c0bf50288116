"""Generator processes on the nodes of a Ray cluster: one actor a worker, spread over the nodes.

The actor only starts `loadtest.generator.worker` on its node and passes its lines on; what is measured is the same
process as on
one machine. Nodes' clocks need agree only on the common start (they are set by NTP); no two are ever subtracted.
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
    """One generator process on the node where Ray placed this actor."""

    def run(self, document: dict[str, Any]) -> Iterator[str]:
        """The worker's lines; it ends with this process, whatever happens here."""
        command = [sys.executable, "-m", "loadtest.generator.worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None  # noqa: PT018  # both are pipes
            process.stdin.write(json.dumps(document) + "\n")
            process.stdin.flush()
            for line in process.stdout:  # noqa: UP028  # Ray drives this with send(), which a file does not have
                yield line


async def report_lines(order: WorkerAssignment, address: str) -> AsyncGenerator[dict[str, Any], None]:
    """What a worker on the cluster at `address` reports; leaving kills it. Raises ConfigError if nothing answers."""
    import ray  # only here: a generator on one machine needs no Ray

    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError) as error:
            fix = "Name the head's HOST:PORT, and set Ray's token if it wants one."
            raise ConfigError(
                f"no Ray cluster answers at {address} ({error}).", fix, field="--set ray_address"
            ) from None
    worker = ray.remote(RemoteWorker).options(num_cpus=0, scheduling_strategy="SPREAD").remote()
    try:
        stream = worker.run.options(num_returns="streaming").remote(order.document())
        async for reference in stream:
            yield json.loads(await reference)
    finally:
        ray.kill(worker)
