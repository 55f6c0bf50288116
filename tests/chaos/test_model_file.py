"""Test of a model file that is damaged under a running server.

The language model is a real one, whose file the engine maps into memory. Speech to text and voice are emulated.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
import pytest

from rejoinder.store.model_store import ModelStore
from tests.chaos.system import System, settings
from tests.system.harness.served import SMALL_LLM, serving
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

NEEDED = ("silero-vad", "smart-turn-v3.2", SMALL_LLM)
WATCH_S = 25.0
GROWN_S = 90.0


async def test_a_truncated_model_is_named_and_repaired(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, store: ModelStore, question: bytes
) -> None:
    """If the model's file is truncated, the replicas that use it die, and health names the stage after some seconds.

    Callers get an answer to every turn, even if it is the sentence that there is none, and no call is cut. Once the
    file is whole again, new calls are answered.
    """
    models = tmp_path_factory.mktemp("models")
    for name in NEEDED:
        shutil.copytree(store.path(name), models / name)
    args = settings(hosts=1, replicas=1)
    resources = {"num_cpus": 0.05}
    scaling = {"min_replicas": 1, "max_replicas": 1}
    args["llm"] = {"model": SMALL_LLM, "autoscaling": scaling, "resources": resources}
    args["models"] = {"directory": str(models)}
    args["conversation"] |= {"instructions": "Be brief.", "give_up_after_s": 5}
    (file,) = (models / SMALL_LLM).glob("*.gguf")
    whole = file.read_bytes()
    with serving(tmp_path, args) as served:
        system = System(served, question, hosts=1, replicas=1)
        system.await_whole()
        found = await system.observe(lambda: file.open("r+b").truncate(1 << 20), WATCH_S)
        print(found)
        assert found.cut == 0
        assert "503 cannot reach llm" in found.health
        file.write_bytes(whole)
        wait_until(lambda: _healthy(system), GROWN_S, "a replica with the repaired file")


def _healthy(system: System) -> bool:
    return httpx2.get(f"{system.served.url}/healthz", timeout=5).status_code == 200
