"""What the tests of holds share: a hold that lacks nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import Connection

from include.holds.registry import Hold, HoldKind, add
from include.services.clock import FixedClock
from tests.evidence.support import START

CLOCK = FixedClock(START)


def place(conn: Connection, kind: HoldKind, value: str, **more: Any) -> Hold:
    given = {
        "reason": "claim pending",
        "owner": "legal",
        "case_ref": "C-1",
        "review_on": date(2027, 1, 1),
    } | more
    return add(conn, CLOCK, kind=kind, value=value, **given)
