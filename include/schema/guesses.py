"""The result of a guess about the data category of a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Guess:
    """A guess about the data category of a column, or of a key inside a JSON column.

    Attributes:
        schema: PostgreSQL schema.
        table: table in the schema.
        column: column of the table.
        key: key inside the JSON column; empty if the guess is about the column itself.
        category: fideslang data category.
        confidence: confidence of the guess: high, medium or low.
        reason: reason in a few words. It contains names and percentages, never a value of a record.
        subject: fideslang data subject whom the column describes; empty if it describes the same
            data subject as the table.
    """

    schema: str
    table: str
    column: str
    key: str
    category: str
    confidence: Confidence
    reason: str
    subject: str = ""
