"""Tests that every setting has a description and a range, because the settings reference is generated from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rejoinder.core.settings.serve_file import ServeFile

LEAST_WORDS = 4
NUMBERS = {int, float}


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models that occur in a type, for example `LlmSettings` in `LlmSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def reachable(model: type[BaseModel], found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Add the model and every model that its fields contain to `found`, and return `found`."""
    if model not in found:
        found.add(model)
        for field in model.model_fields.values():
            for inner in models_in(field.annotation):
                reachable(inner, found)
    return found


FIELDS = sorted(
    (
        (f"{model.__name__}.{name}", field)
        for model in reachable(ServeFile, set())
        for name, field in model.model_fields.items()
    ),
    key=lambda entry: entry[0],
)


def test_all_sections_are_reached() -> None:
    """FIELDS, the list of settings to check, includes the fields of nested, repeated and optional sections."""
    names = {name.partition(".")[0] for name, _ in FIELDS}
    assert {"HttpOptions", "LlmSettings", "SpeculativeDecoding", "Opening", "EmulationSettings"} <= names


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_has_a_description(name: str, field: FieldInfo) -> None:
    """Every setting has a description of at least LEAST_WORDS words that ends with a full stop."""
    description = field.description or ""
    assert len(description.split()) >= LEAST_WORDS, f"{name} has no description"
    assert description.rstrip().endswith(".")


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_number_has_a_range(name: str, field: FieldInfo) -> None:
    """Every number has its range in the type of its field, where the generated reference finds it."""
    if field.annotation in NUMBERS and name != "EmulationSettings.seed":
        assert field.metadata, f"{name} has no range"
