"""Tests of the launch description: its example, its defaults, and the message for each mistake."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cluster.description.launch_description import PROFILES, LaunchDescription, parse_description, read_launch
from rejoinder.core.errors import ConfigError

EXAMPLE = PROFILES.parent / "description" / "example.yaml"

SMALL: dict[str, Any] = {
    "name": "voice",
    "profile": "cpu-cluster",
    "groups": [
        {"name": "head", "role": "head", "addresses": ["10.0.0.1"], "cpus": 8, "memory_gb": 16},
        {"name": "cpu", "addresses": ["10.0.0.2", "10.0.0.3"], "cpus": 8, "memory_gb": 16},
    ],
}
"""A description with the fewest keys."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return SMALL with one value replaced or added. The path has dots, with numbers for the elements of a list."""
    document = copy.deepcopy(SMALL)
    *parents, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    place: Any = document
    for part in parents:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    place[last] = value
    return document


def test_the_example_is_valid_and_names_every_setting() -> None:
    """The example is read with its profile, and every key of every section stands in it, so that none is undocumented.

    Two keys are left out where they exclude another one of the example.
    """
    launch = read_launch(EXAMPLE)
    document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert launch.description.head.addresses == ("10.0.0.1",)
    assert launch.serve.application.args.llm.engine == "vllm"
    assert set(_undocumented(LaunchDescription, document, "")) == {
        *("groups.count", "groups.min", "groups.max"),  # instead of addresses; a comment shows them
        "models.host_path",  # instead of claim; a comment shows it
        "machines.external_head",
        *("kubernetes.redis.address", "kubernetes.redis.password", "kubernetes.redis.image"),
    }


def _undocumented(model: type[BaseModel], document: Any, prefix: str) -> list[str]:
    """Return the paths of the model's fields that the document does not have. Lists count as one section."""
    rows = document if isinstance(document, list) else [document]
    missing = []
    for name, field in model.model_fields.items():
        values = [row[name] for row in rows if isinstance(row, dict) and name in row]
        if not values:
            missing.append(prefix + name)
            continue
        inner = [argument for argument in _types(field.annotation) if issubclass(argument, BaseModel)]
        if inner and isinstance(values[0], dict | list):
            flat = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
            missing += _undocumented(inner[0], flat, f"{prefix}{name}.")
    return missing


def _types(annotation: Any) -> list[type]:
    """Return the classes in a type annotation, such as those in `tuple[A, ...]` and `A | None`."""
    arguments = getattr(annotation, "__args__", ())
    if isinstance(annotation, type) and not arguments:
        return [annotation]
    return [inner for argument in arguments for inner in _types(argument)]


def test_a_small_description_has_the_defaults_of_the_example() -> None:
    """The values in the example's optional sections are the defaults, as its first lines say.

    Not the gateway, the key of Prometheus and the claim, which are off by default.
    """
    example, small = read_launch(EXAMPLE).description, parse_description(SMALL)
    assert (example.ports, example.machines) == (small.ports, small.machines)
    assert example.kubernetes.model_copy(update={"gateway": None, "monitoring_key": None}) == small.kubernetes
    assert example.models.model_copy(update={"claim": None}) == small.models


def test_numbers_of_pods_have_defaults() -> None:
    """A group of pods has one pod; `count` alone fixes the number; `max` alone lets it grow from one."""
    bounds = []
    for numbers in ({}, {"count": 3}, {"max": 4}, {"min": 2, "count": 3, "max": 4}):
        group = {"name": "cpu", "cpus": 8, "memory_gb": 16, **numbers}
        bounds.append(parse_description(changed("groups.1", group)).workers[0].bounds)
    assert bounds == [(1, 1, 1), (3, 3, 3), (1, 1, 4), (2, 3, 4)]


def test_a_group_s_name_is_its_label_unless_another_is_given() -> None:
    """Nodes have the labels `group` and `region`, and those of their group; `labels` can replace `group`."""
    description = parse_description({**changed("groups.0.labels", {"group": "cpu", "disk": "fast"}), "region": "eu"})
    assert description.labels(description.head) == {"group": "cpu", "region": "eu", "disk": "fast"}
    assert description.labels(description.workers[0]) == {"group": "cpu", "region": "eu"}


def test_the_token_is_a_secret() -> None:
    """The variable of Ray's token is secret without being listed, unless tokens are off."""
    listed = changed("secrets", [{"variable": "REJOINDER_API_KEYS"}])
    assert parse_description(listed).secret_variables == ("REJOINDER_API_KEYS", "RAY_AUTH_TOKEN")
    assert parse_description({**listed, "token": False}).secret_variables == ("REJOINDER_API_KEYS",)


CPU_GROUP = {"name": "cpu", "cpus": 8, "memory_gb": 16}
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    (changed("nmae", "voice"), "nmae", "unknown key"),
    (changed("name", "Voice_1"), "name", "Use lower-case letters"),
    (changed("groups", []), "groups", "at least 1 item"),
    (changed("groups.1.role", "head"), "groups.1", "one address, or count 1"),
    (changed("groups.0.role", "worker"), "", "Give it to exactly one group"),
    (changed("groups.1.name", "head"), "", "the name head is used twice"),
    (changed("groups.1.addresses", ["10.0.0.1"]), "", "the address 10.0.0.1 is used twice"),
    (changed("groups.1.addresses", ["10.0.0.2", "10.0.0.2"]), "groups.1", "listed twice"),
    (changed("groups.1.addresses", ["fd00::2"]), "groups.1.addresses.0", "Use an IPv4 address"),
    (changed("groups.1.addresses", ["[fd00::2]"]), "groups.1.addresses.0", "Use an IPv4 address"),
    (changed("groups.1.addresses", ["10.0.0.256"]), "groups.1.addresses.0", "not an IPv4 address"),
    (changed("groups.1.addresses", ["ray@10.0.0.2:22"]), "groups.1.addresses.0", "Leave out the scheme, user and port"),
    (changed("groups.1.count", 2), "groups.1", "either addresses or numbers"),
    (changed("groups.1", {**CPU_GROUP, "min": 3, "max": 2}), "groups.1", "are not in order"),
    (changed("groups.1.image", "gpu"), "groups.1", "Add gpu with its type"),
    (changed("groups.1.gpu", {"count": 1}), "groups.1.gpu.type", "Field required"),
    (changed("groups.1.stages", ["stt", "asr"]), "groups.1.stages.1", "Input should be"),
    (changed("groups.1.labels", {"region": "eu"}), "groups.1", "Remove it"),
    (changed("groups.1.labels", {"disk": "fast ssd"}), "groups.1.labels.disk", "not a value of a label"),
    (changed("groups.1.cpus", 0), "groups.1.cpus", "greater than or equal to 1"),
    (changed("secrets", [{"variable": "sk-12345"}]), "secrets.0.variable", "the value never belongs in this file"),
    (changed("secrets", [{"variable": "KEY", "value": "abc"}]), "secrets.0.value", "unknown key"),
    (changed("environment", {"RAY_AUTH_TOKEN": "abc"}), "", "contains the secret RAY_AUTH_TOKEN"),
    (changed("groups.1.environment", {"RAY_AUTH_TOKEN": "abc"}), "", "contains the secret RAY_AUTH_TOKEN"),
    (changed("ports.workers", "10002"), "ports.workers", "Write it as first-last"),
    (changed("ports.workers", "19999-10002"), "ports.workers", "Swap the numbers"),
    (changed("ports.workers", "10002-10050"), "ports", "at least 100"),
    (changed("ports.http", 30500), "ports", "http (30500) and replicas_http (30000-31000) overlap"),
    (changed("ports.metrics", 8000), "ports", "http (8000) and metrics (8000) overlap"),
    (changed("ports.http", 70000), "ports.http", "less than or equal to 65535"),
    (changed("machines.state", "/var/lib/of a user"), "machines.state", "String should match"),
    (changed("models", {"claim": "a", "host_path": "/b"}), "models", "Remove one of them"),
    (changed("kubernetes.callers", ["10.0.0.1/8"]), "kubernetes.callers", "Write it as 10.0.0.0/8"),
]


@pytest.mark.parametrize(("document", "field", "message"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_named(document: dict[str, Any], field: str, message: str) -> None:
    """Each mistake is refused with the path of its field and a message that says what is wrong or how to fix it."""
    with pytest.raises(ConfigError) as caught:
        parse_description(document)
    assert (caught.value.field, message in str(caught.value)) == (field, True), str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: voice\nname: other\n", "the key 'name' is there twice"),
        ("name: höll".encode("utf-16"), "is not UTF-8 text"),
        (b"name: [voice", "is not YAML"),
        (b"", "Input should be"),
        (b"- name", "Input should be"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is not one mapping of YAML in UTF-8 with unique keys is refused with one sentence."""
    path = tmp_path / "voice.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_launch(path)


def test_the_profile_is_found_beside_the_description(tmp_path: Path) -> None:
    """A profile's path is relative to the description. An unknown name is refused with the shipped names."""
    path = tmp_path / "voice.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "profile": "own.yaml"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="cpu-cluster, gpu-cluster, hosted-llm"):
        read_launch(path)
    (tmp_path / "own.yaml").write_text("http_options: {host: 0.0.0.0, port: 9000}", encoding="utf-8")
    assert read_launch(path).serve.http_options.port == 9000
