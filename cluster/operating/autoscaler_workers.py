"""The machines on which Ray's autoscaler of a `ray up` cluster starts Ray.

`rejoinder launch` runs this module on the head over SSH, with the TMPDIR of Ray's processes: `python -m
cluster.operating.autoscaler_workers CONFIG add|remove ADDRESS...`. CONFIG is the file that `ray up` has copied to the
head, and that the autoscaler reads again every few seconds.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Configuration = dict[str, Any]


def with_workers(configuration: Configuration, workers: Sequence[str]) -> Configuration:
    """Return the autoscaler's configuration with other machines as workers, all of which it keeps running.

    Args:
        configuration: Configuration of a cluster of the provider `local`, as `ray up` has prepared it.
        workers: Addresses of the machines.
    """
    changed = copy.deepcopy(configuration)
    changed["provider"]["worker_ips"] = list(workers)
    changed["max_workers"] = len(workers)
    for kind in changed["available_node_types"].values():  # there is one
        kind["min_workers"] = kind["max_workers"] = len(workers)
    return changed


def change_workers(path: Path, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
    """Add machines to those on which the autoscaler keeps Ray running, or remove some. Ray on them is not touched.

    Args:
        path: File of the autoscaler's configuration.
        add: Addresses of machines to start Ray on.
        remove: Addresses of machines to leave alone.
    """
    from deployments.serving.compat import set_launcher_machines

    configuration = json.loads(path.read_text(encoding="utf-8"))
    listed = configuration["provider"]["worker_ips"]
    workers = [address for address in dict.fromkeys([*listed, *add]) if address not in remove]
    changed = with_workers(configuration, workers)
    # The list of machines comes first. With more machines in it than max_workers, the autoscaler stops any of them.
    # With fewer than min_workers, it finds none to start.
    set_launcher_machines(changed["cluster_name"], changed["provider"])
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(changed), encoding="utf-8")
    os.replace(new, path)  # the autoscaler never reads half a file


def main(arguments: list[str]) -> None:
    """Add or remove machines, as the module's docstring says."""
    path, action, *addresses = arguments
    change_workers(Path(path), **{action: addresses})


if __name__ == "__main__":
    main(sys.argv[1:])
