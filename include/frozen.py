"""Base classes of immutable Pydantic models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Base class of immutable models that ignore unknown fields.

    Such a model can read data that a newer version of ParcelSeal wrote with more fields.
    """

    model_config = ConfigDict(frozen=True)


class StrictModel(FrozenModel, extra="forbid"):
    """Base class of immutable models that refuse unknown fields.

    It is used for data that a person wrote, and for data that only this version of the code
    creates.
    """
