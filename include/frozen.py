"""Bases of pydantic models whose values never change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """Base of records: frozen. A field that a newer version writes is left out."""

    model_config = ConfigDict(frozen=True)


class StrictModel(FrozenModel, extra="forbid"):
    """Base of what people write and of what ParcelSeal builds: an unknown field is refused."""
