"""What clocks start from, for the first entry of a timeline, which every later digest seals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from include.incident.rules import ClockRule
from include.incident.selection import Selection
from include.incident.timeline import canonical, in_utc


def begun(
    *,
    type: str,  # noqa: A002 - the incident's own word
    aware_at: datetime,
    began_at: datetime | None,
    selection: Selection,
    duplicate_of: str | None,
    rules: str,
) -> dict[str, Any]:
    """What an incident began with, as JSON.

    Args:
        type: of incident.yaml.
        aware_at: when the company became aware.
        began_at: when the leak began; None where nobody knows.
        selection: what is affected, as it was said first; of listed keys their number and the
            SHA-256 of their lines, each with a line feed.
        duplicate_of: number of the incident that it is.
        rules: SHA-256 of those that it is measured by (`rules_digest`).
    """
    said = selection.as_json()
    if selection.keys:
        said["keys"] = {"count": len(selection.keys), "sha256": _digest(selection.keys)}
    return {
        "type": type,
        "aware_at": in_utc(aware_at),
        "began_at": in_utc(began_at) if began_at else None,
        "selection": said,
        "duplicate_of": duplicate_of,
        "rules_sha256": rules,
    }


def rules_digest(clocks: Any, kept: Any) -> str:
    """SHA-256 (hex) of the rules of an incident, as the register has them.

    Args:
        clocks: the column, JSON.
        kept: the column, JSON; None where it is empty.
    """
    return hashlib.sha256(canonical({"clocks": clocks, "kept": kept})).hexdigest()


def clocks_digest(clocks: Iterable[ClockRule]) -> str:
    """SHA-256 (hex) of clocks as first entries held it before 0020: without what is default."""
    rules = [one.model_dump(mode="json", exclude_defaults=True) for one in clocks]
    return hashlib.sha256(canonical({"clocks": rules})).hexdigest()


def differing(kept: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names of what a first entry holds and the register has otherwise.

    Args:
        kept: data of the first entry; what an older version did not keep is not compared.
        found: `begun` of the register.
    """
    return [name for name, value in found.items() if name in kept and kept[name] != value]


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{one}\n" for one in keys).encode()).hexdigest()
