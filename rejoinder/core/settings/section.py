"""Base model and shared number types of the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section of the configuration.

    Unknown keys are refused and values are frozen. The docstring below a field is the field's description, from which
    the settings reference is generated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
