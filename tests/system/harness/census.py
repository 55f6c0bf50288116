"""An application that says where Ray put the stages of a configuration: their real options around tiny classes."""

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
    """Stands where a stage would, and says where that is."""

    async def describe(self) -> dict[str, Any]:
        context = ray.get_runtime_context()
        return {
            "node": context.get_node_id(),
            "resources": context.get_assigned_resources(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }


@serve.ingress(web)
class Census:
    def __init__(self, handles: dict[str, DeploymentHandle]) -> None:
        self._handles = handles

    @web.get("/")
    async def everybody(self) -> dict[str, dict[str, Any]]:
        """Each stage's own answer."""
        return {name: await handle.describe.remote() for name, handle in self._handles.items()}

    @web.get("/nodes")
    async def nodes(self) -> list[dict[str, Any]]:
        return [{"node": node["NodeID"], "labels": node["Labels"]} for node in ray.nodes()]

    @web.get("/status/{app}")
    async def status(self, app: str) -> dict[str, dict[str, int]]:
        """Of every deployment of another application: how many replicas are in which state."""
        found = serve.status().applications.get(app)
        return {name: dict(state.replica_states) for name, state in found.deployments.items()} if found else {}


def build(args: dict[str, Any]) -> Application:
    """The stages that `args` configures, as deployments of their own names."""
    settings = parse_settings(args)
    handles = {name: stage_deployment(type(name, (Settler,), {}), getattr(settings, name)).bind() for name in args}
    return serve.deployment(Census, ray_actor_options={"num_cpus": 0}).bind(handles)
