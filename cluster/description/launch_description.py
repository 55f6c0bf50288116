"""The launch description as a whole, and the function that reads its file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from cluster.config_file import read_yaml
from cluster.description.addresses import DnsLabel, LabelValue, VariableName, VariableValue
from cluster.description.groups import NodeGroupDescription, group_labels
from cluster.description.ports import PortPlan
from cluster.description.targets import (
    Images,
    KubernetesSettings,
    MachineSettings,
    ModelVolume,
    SecretVariable,
    TlsFilesOnNodes,
)
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.section import Section
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file
from rejoinder.core.settings.settings import config_error

Target = Literal["kuberay", "ray-up", "bare"]
"""What a cluster is launched with: the KubeRay operator, Ray's cluster launcher, or plain `ray start`."""

TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
"""Environment variable with the token that Ray's processes require of each other."""

PROFILES = Path(__file__).parents[1] / "profiles"
"""Folder of the serve profiles that come with the package."""


class LaunchDescription(Section):
    """A cluster to launch: its node groups, models, secrets and ports, and the serve profile that it runs."""

    name: DnsLabel
    """Name of the cluster."""
    region: LabelValue = ""
    """Region or zone of the nodes. Every node gets it as the label `region`. Empty: no label."""
    profile: str = "cpu-cluster"
    """Serve profile: `cpu-cluster`, `gpu-cluster` or `hosted-llm`, or the path of a file such as `ray_config.yaml`,
    relative to the description.
    """
    groups: tuple[NodeGroupDescription, ...] = Field(min_length=1)
    """Groups of nodes. Exactly one has the role head."""
    images: Images = Images()
    """Container images."""
    models: ModelVolume = ModelVolume()
    """Where the nodes find model files."""
    secrets: tuple[SecretVariable, ...] = ()
    """Environment variables with secret values."""
    environment: dict[VariableName, VariableValue] = Field(default_factory=dict)
    """Environment variables of all nodes. Keys and tokens belong in `secrets`."""
    token: bool = True
    """Require a token between Ray's processes and of everybody who connects to them. Without it, whoever reaches Ray's
    ports can run code.
    """
    tls: TlsFilesOnNodes | None = None
    """Certificate for the connections of callers. None: no TLS."""
    ports: PortPlan = PortPlan()
    """Ports of every node."""
    machines: MachineSettings = MachineSettings()
    """How machines are reached and prepared, for `ray-up` and `bare`."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    """Namespace and objects, for `kuberay`."""

    @model_validator(mode="after")
    def _groups_fit_together(self) -> LaunchDescription:
        heads = [group.name for group in self.groups if group.role == "head"]
        if len(heads) != 1:
            raise ValueError(f"{len(heads)} groups have the role head. Give it to exactly one group")
        for what, values in (
            ("name", [group.name for group in self.groups]),
            ("address", [address for group in self.groups for address in group.addresses]),
            ("secret", [secret.variable for secret in self.secrets]),
        ):
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise ValueError(f"the {what} {twice[0]} is used twice. Change one of them")
        return self

    @model_validator(mode="after")
    def _secrets_are_not_written_down(self) -> LaunchDescription:
        secret = {TOKEN_VARIABLE, *(secret.variable for secret in self.secrets)}
        for environment in (self.environment, *(group.environment for group in self.groups)):
            if written := secret & environment.keys():
                raise ValueError(f"environment contains the secret {min(written)}. Remove it, and set it outside")
        return self

    @property
    def head(self) -> NodeGroupDescription:
        """The group with Ray's head."""
        return next(group for group in self.groups if group.role == "head")

    @property
    def workers(self) -> tuple[NodeGroupDescription, ...]:
        """The groups without Ray's head."""
        return tuple(group for group in self.groups if group.role == "worker")

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """Names of all environment variables whose value is secret, the token of Ray's processes among them."""
        names = tuple(secret.variable for secret in self.secrets)
        return names if not self.token or TOKEN_VARIABLE in names else (*names, TOKEN_VARIABLE)

    def labels(self, group: NodeGroupDescription) -> dict[str, str]:
        """Return the labels of the nodes of a group, by key."""
        return group_labels(group, self.region)


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch description together with the serve profile that it names.

    Attributes:
        description: Content of the description's file.
        profile: Content of the serve profile as it stands in its file, parsed from YAML.
        serve: The validated serve profile.
        profile_path: File of the serve profile.
    """

    description: LaunchDescription
    profile: dict[str, Any]
    serve: ServeFile
    profile_path: Path


def parse_description(document: object) -> LaunchDescription:
    """Validate the content of a launch description, parsed from YAML.

    Raises:
        ConfigError: A field is invalid; the error names the first one and the fix.
    """
    try:
        return LaunchDescription.model_validate(document)
    except ValidationError as error:
        raise config_error(error, "") from None


def read_launch(path: Path) -> Launch:
    """Return the launch description in a file, with its serve profile.

    Raises:
        ConfigError: One of the two files cannot be read, is not YAML or has an invalid field.
    """
    description = parse_description(read_yaml(path))
    profile_path = _profile_path(description.profile, path.parent)
    profile = read_yaml(profile_path)
    serve = parse_serve_file(profile)
    return Launch(description, profile, serve, profile_path)


def _profile_path(profile: str, folder: Path) -> Path:
    shipped = {path.stem: path for path in PROFILES.glob("*.yaml")}
    path = shipped.get(profile, folder / profile)
    if not path.is_file():
        names = ", ".join(sorted(shipped))
        raise ConfigError(f"{profile!r} is not a file.", f"Name one, or one of {names}.", field="profile")
    return path
