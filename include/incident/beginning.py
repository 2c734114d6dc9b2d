"""What clocks start from, for the first entry of a timeline, which every later digest seals."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from include.incident.as_opened import Kept
from include.incident.selection import Selection
from include.incident.timeline import canonical, in_utc
from include.policy.incident import ClockRule

CRITICAL = "critical"
"""Key of the first entry's data: whether the company's systems were critical infrastructure."""


def begun(
    *,
    type: str,  # noqa: A002 - the incident's own word
    aware_at: datetime,
    began_at: datetime | None,
    selection: Selection,
    clocks: Iterable[ClockRule],
    kept: Kept | None,
) -> dict[str, Any]:
    """What an incident began with, as JSON.

    Args:
        type: of incident.yaml.
        aware_at: when the company became aware.
        began_at: when the leak began; None where nobody knows.
        selection: what is affected, as it was said first; of listed keys their number and the
            SHA-256 of their lines, each with a line feed.
        clocks: their rules; the SHA-256 is of the canonical JSON of ``{"clocks": [...]}``, in which
            what has its default is left out.
        kept: other rules, digested in the same way; None of incidents that kept none.
    """
    said = selection.as_json()
    if selection.keys:
        said["keys"] = {"count": len(selection.keys), "sha256": _digest(selection.keys)}
    rules = [one.model_dump(mode="json", exclude_defaults=True) for one in clocks]
    begun = {
        "type": type,
        "aware_at": in_utc(aware_at),
        "began_at": in_utc(began_at) if began_at else None,
        "selection": said,
        "clocks_sha256": hashlib.sha256(canonical({"clocks": rules})).hexdigest(),
    }
    if kept is not None:
        others = kept.model_dump(mode="json", exclude_defaults=True)
        begun["kept_sha256"] = hashlib.sha256(canonical(others)).hexdigest()
    return begun


def differing(kept: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names of what a first entry holds and the register has otherwise.

    Args:
        kept: data of the first entry; what an older version did not keep is not compared.
        found: `begun` of the register.
    """
    return [name for name, value in found.items() if name in kept and kept[name] != value]


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{one}\n" for one in keys).encode()).hexdigest()
