"""The published cases as rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def rows(name: str) -> list[dict[str, str]]:
    """Read one of the tables."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rivest() -> list[dict[str, Any]]:
    """Read the sampler's vectors."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "rivest_vectors.json").read_text("utf-8"))
    return found
