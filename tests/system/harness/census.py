"""Application for tests that reports where Ray placed the stages of a configuration.

Its deployments have the names and the options of the real stages, but do no work.
"""

import os
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from deployments.app import stage_deployment
from rejoinder.core.settings.settings import parse_settings

web = FastAPI()


class Settler:
    """Deployment that replaces a stage and only reports where it runs: its node, resources and visible GPUs."""

    async def describe(self) -> dict[str, Any]:
        context = ray.get_runtime_context()
        return {
            "node": context.get_node_id(),
            "resources": context.get_assigned_resources(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }


@serve.ingress(web)
class Census:
    """Ingress deployment with HTTP routes that report the placement of the stages, the nodes and replica states."""

    def __init__(self, handles: dict[str, DeploymentHandle]) -> None:
        self._handles = handles

    @web.get("/")
    async def everybody(self) -> dict[str, dict[str, Any]]:
        """Return for each stage its node id ("node"), its "resources" and the numbers of its visible GPUs ("gpus")."""
        return {name: await handle.describe.remote() for name, handle in self._handles.items()}

    @web.get("/nodes")
    async def nodes(self) -> list[dict[str, Any]]:
        """Return the id ("node") and the "labels" of each node of the cluster."""
        return [{"node": node["NodeID"], "labels": node["Labels"]} for node in ray.nodes()]

    @web.get("/status/{app}")
    async def status(self, app: str) -> dict[str, dict[str, int]]:
        """Return the number of replicas in each state, for every deployment of application `app`; {} if unknown."""
        found = serve.status().applications.get(app)
        return {name: dict(state.replica_states) for name, state in found.deployments.items()} if found else {}


def build(args: dict[str, Any]) -> Application:
    """Return the application: a `Census`, and a `Settler` with the Ray options of each stage in `args`.

    `args` maps the names of stages to their settings.
    """
    settings = parse_settings(args)
    handles = {name: stage_deployment(type(name, (Settler,), {}), getattr(settings, name)).bind() for name in args}
    return serve.deployment(Census, ray_actor_options={"num_cpus": 0}).bind(handles)
