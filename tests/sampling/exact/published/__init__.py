"""Read published test cases: tables as rows, and test vectors."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of published test cases."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rivest() -> list[dict[str, Any]]:
    """Read the published test vectors of Rivest's sampler."""
    vectors: list[dict[str, Any]] = json.loads((FOLDER / "rivest_vectors.json").read_text("utf-8"))
    return vectors
