"""Launch descriptions for the tests of rendered files, and what those files contain."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cluster.config_file import read_yaml
from cluster.description.launch_description import PROFILES, Launch, Target, parse_description
from cluster.rendering.targets import render_files
from rejoinder.core.settings.serve_file import parse_serve_file

IMAGES = {"cpu": "registry.example.com/cpu:1", "gpu": "registry.example.com/gpu:1"}
STAGES = ["host", "turn_detector", "stt", "llm", "tts"]
CPU = {"cpus": 8, "memory_gb": 16}
GPU = {"cpus": 16, "memory_gb": 64, "gpu": {"type": "L4"}, "image": "gpu"}
KEYS = {"variable": "REJOINDER_API_KEYS", "kubernetes": {"name": "keys", "key": "api"}}
VENDOR = {"variable": "OPENAI_API_KEY", "kubernetes": {"name": "keys", "key": "openai"}}

PODS: dict[str, dict[str, Any]] = {
    "cpu-cluster": {
        "name": "small",
        "profile": "cpu-cluster",
        "groups": [{"name": "head", "role": "head", **CPU}, {"name": "cpu", "count": 3, **CPU}],
        "images": IMAGES,
        "models": {"host_path": "/srv/models"},
        "secrets": [KEYS],
        "token": False,
        "kubernetes": {
            "redis": {"address": "redis.data:6379", "password": {"name": "redis", "key": "password"}},
            "service_type": "ClusterIP",
            "monitoring_namespace": None,
        },
    },
    "gpu-cluster": {
        "name": "voice",
        "region": "eu",
        "profile": "gpu-cluster",
        "groups": [
            {"name": "head", "role": "head", **CPU},
            {"name": "gpu", "min": 3, "max": 6, "stages": STAGES, "node_selector": {"pool": "gpu"}, **GPU},
        ],
        "images": IMAGES,
        "models": {"claim": "models", "storage_class": "shared"},
        "secrets": [KEYS, {"variable": "HF_TOKEN", "kubernetes": {"name": "keys", "key": "hf"}}],
        "kubernetes": {
            "gateway": {},
            "redis": {"password": {"name": "redis", "key": "password"}},
            "service_annotations": {"example.com/timeout": "7200"},
            "image_pull_secrets": ["registry"],
            "monitoring_key": {"name": "keys", "key": "metrics"},
        },
        "tls": {"secret": "voice-tls"},
    },
    "hosted-llm": {
        "name": "hosted",
        "profile": "hosted-llm",
        "groups": [
            {"name": "head", "role": "head", **CPU},
            {"name": "calls", "max": 2, "labels": {"group": "cpu"}, "stages": ["host", "llm"], **CPU},
            {"name": "speech", "max": 4, "labels": {"group": "cpu"}, "stages": ["stt", "tts", "turn_detector"], **CPU},
        ],
        "images": IMAGES,
        "models": {"claim": "models"},
        "secrets": [KEYS, VENDOR],
        "kubernetes": {"monitoring_key": {"name": "keys", "key": "metrics"}},
    },
}
"""Description of pods for each shipped profile. Together they use every option of the rendering."""


def machines(name: str) -> dict[str, Any]:
    """Return a description from PODS with machines instead of pods: three workers in all."""
    groups = []
    for number, group in enumerate(PODS[name]["groups"]):
        kept = {key: value for key, value in group.items() if key not in ("count", "min", "max")}
        count = 1 if group.get("role") == "head" else 3
        groups.append({**kept, "addresses": [f"10.0.{number}.{host}" for host in range(1, count + 1)]})
    return {**PODS[name], "groups": groups}


def launch(description: dict[str, Any]) -> Launch:
    """Return the launch of a description that uses a shipped profile."""
    parsed = parse_description(description)
    path = PROFILES / f"{parsed.profile}.yaml"
    profile = read_yaml(path)
    return Launch(parsed, profile, parse_serve_file(profile), path)


def rendered(description: dict[str, Any], target: Target, folder: Path = Path("/rendered")) -> dict[str, str]:
    """Return the text of each rendered file by its path."""
    return {file.path: file.text for file in render_files(launch(description), target, folder)}


@cache
def manifests(name: str) -> tuple[dict[str, Any], ...]:
    """Return every Kubernetes object that is rendered from a description in PODS, except the kustomization."""
    files = rendered(PODS[name], "kuberay")
    texts = [text for path, text in files.items() if path != "kustomization.yaml"]
    return tuple(one for text in texts for one in yaml.safe_load_all(text))


def find(name: str, kind: str, object_name: str = "") -> dict[str, Any]:
    """Return the only rendered object of a kind, or the one with this name."""
    (found,) = [
        one
        for one in manifests(name)
        if one["kind"] == kind and (not object_name or one["metadata"]["name"] == object_name)
    ]
    return found
