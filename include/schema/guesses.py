"""A guess about a column: its data category, how sure it is, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Guess:
    """A guess about one column, or about one key inside a JSON column.

    Attributes:
        schema: PostgreSQL schema.
        table: table in it.
        column: column of it.
        key: key inside a JSON column, empty for the column itself.
        category: fideslang data category.
        confidence: how sure the guess is.
        reason: why, in a few words; names and shares, never a value.
        subject: fideslang data subject of the column, where it may be another than the table's.
    """

    schema: str
    table: str
    column: str
    key: str
    category: str
    confidence: Confidence
    reason: str
    subject: str = ""
