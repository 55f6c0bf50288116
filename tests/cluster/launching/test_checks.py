"""Tests of the checks before a launch: each mistake between description, profile and target is named with its fix."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.description.checks import check_launch
from cluster.description.launch_description import Launch, Target, parse_description
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import parse_serve_file
from tests.cluster.launching.rendering import PODS, launch, machines

Changes = dict[str, Any]


def altered(original: Launch, *, description: Changes | None = None, serve: Changes | None = None) -> Launch:
    """Return a launch with changed values. The keys are dotted paths in the description or in the serve profile."""
    document = original.description.model_dump(mode="json", exclude_unset=True)
    profile = copy.deepcopy(original.profile)
    for target, changes in ((document, description), (profile, serve)):
        for path, value in (changes or {}).items():
            _set(target, path, value)
    return Launch(parse_description(document), profile, parse_serve_file(profile), original.profile_path)


def _set(place: Any, path: str, value: Any) -> None:
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    for part in parents:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    place[last] = value


ARGS = "applications.0.args"
KUBERAY, MACHINES = PODS["gpu-cluster"], machines("gpu-cluster")
MISTAKES: list[tuple[Target, Changes, Changes, str, str]] = [
    ("bare", {"groups.1.addresses": []}, {}, "groups.1.addresses", "which bare needs"),
    ("ray-up", {"machines.ssh_port": 2222}, {}, "machines.ssh_port", "use --target bare"),
    ("kuberay", {"groups.1": MACHINES["groups"][1]}, {}, "groups.1.addresses", "Replace addresses by count"),
    ("kuberay", {"images": {"cpu": "a"}}, {}, "images.gpu", "Build cluster/images/gpu.Dockerfile"),
    ("kuberay", {"secrets": [{"variable": "HF_TOKEN"}]}, {}, "secrets.0.kubernetes", "name of the Secret and its key"),
    ("kuberay", {"models": {}}, {}, "models", "Set claim"),
    ("kuberay", {"tls": {}}, {}, "tls.secret", "Secret of the type kubernetes.io/tls"),
    ("bare", {"secrets": []}, {}, "secrets", "callers would need no key. Add {variable: REJOINDER_API_KEYS}"),
    ("kuberay", {"kubernetes.drain_s": 600}, {}, "kubernetes.drain_s", "Raise it to at least 3600"),
    ("kuberay", {"kubernetes.monitoring_key": None}, {}, "kubernetes.monitoring_key", "Prometheus has none"),
    ("bare", {}, {"http_options.host": "127.0.0.1"}, "http_options.host", "Set it to 0.0.0.0"),
    ("bare", {}, {"http_options.host": "localhost"}, "http_options.host", "Set it to 0.0.0.0"),
    ("bare", {}, {"http_options.host": "::"}, "http_options.host", "is an IPv6 address"),
    ("bare", {}, {"http_options.port": 8001}, "http_options.port", "ports.http of the description is 8000"),
    ("bare", {}, {"http_options.port": 0}, "http_options.port", "ports.http of the description is 8000"),
    ("bare", {}, {f"{ARGS}.stt.model": "whisper-bse"}, "args.stt.model", "is not a model of the store"),
    ("bare", {}, {f"{ARGS}.llm.vllm.gpu": "h100"}, "groups.1.stages", "Correct the labels or gpu.type"),
    ("bare", {}, {f"{ARGS}.tts.resources.num_cpus": 20}, "args.tts.resources", "more than a node of gpu has"),
    (
        "bare",
        {},
        {f"{ARGS}.llm": {"engine": "openai_api", "base_url": "https://api.example.com/v1", "model": "m"}},
        "args.llm.api_key_env",
        "Add {variable: OPENAI_API_KEY} to secrets",
    ),
]


@pytest.mark.parametrize(
    ("target", "description", "serve", "field", "message"), MISTAKES, ids=[one[4][:40] for one in MISTAKES]
)
def test_a_mistake_is_named_before_anything_starts(
    target: Target, description: Changes, serve: Changes, *, field: str, message: str
) -> None:
    """Each mistake is refused with its field and its fix."""
    original = launch(KUBERAY if target == "kuberay" else MACHINES)
    with pytest.raises(ConfigError) as caught:
        check_launch(altered(original, description=description, serve=serve), target)
    assert (caught.value.field, message in str(caught.value)) == (field, True), str(caught.value)


@pytest.mark.parametrize("name", sorted(PODS))
def test_the_shipped_profiles_pass(name: str) -> None:
    """Each shipped profile passes the checks for every target, on nodes of the size that the profile is made for."""
    assert [note for note in check_launch(launch(PODS[name]), "kuberay") if "max_replicas" in note] == []
    for target in ("bare", "ray-up"):
        check_launch(launch(machines(name)), target)


def test_open_doors_are_noted() -> None:
    """A cluster whose callers need no key, or whose Ray needs no token, is launched with a note for each."""
    changes: Changes = {"secrets": []}
    original = launch(PODS["cpu-cluster"])
    notes = check_launch(altered(original, description=changes, serve={f"{ARGS}.access.insecure": True}), "kuberay")
    assert [note.split(":")[0] for note in notes] == ["callers need no key", "token is false"]


@pytest.mark.parametrize("address", ["http://10.0.0.5:8000/v1", "http://llm.internal/v1", "http://llm:8000/v1"])
def test_a_language_model_inside_the_network_needs_no_key(address: str) -> None:
    """A server at a private address or a name without a public domain may have no key."""
    changes = {f"{ARGS}.llm": {"engine": "openai_api", "base_url": address, "model": "m"}}
    check_launch(altered(launch(MACHINES), serve=changes), "bare")
