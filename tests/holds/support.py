"""Helper that places a valid legal hold, for the tests of legal holds."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Connection

from include.holds.registry import Hold, HoldKind, add
from include.services.clock import FixedClock
from tests.evidence.support import START

CLOCK = FixedClock(START)


def add_hold(conn: Connection, kind: HoldKind, value: str, **changes: Any) -> Hold:
    """Add a valid legal hold. Keyword arguments replace its fields."""
    fields = {
        "reason": "claim pending",
        "owner": "legal",
        "case_ref": "C-1",
        "review_on": date(2027, 1, 1),
    } | changes
    return add(conn, CLOCK, kind=kind, value=value, **fields)
