"""Whether the clocks agree by which records expire: a wrong one would delete what is not over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import Engine, func, select

from include.services.clock import Clock
from include.services.errors import ControlFailed
from include.state.tables import disposition

APART = timedelta(minutes=10)  # what clocks of machines that are kept in time never differ by


def require_agreement(connection: psycopg.Connection[Any], state: Engine, clock: Clock) -> datetime:
    """Compare our clock with those of both databases and with the last plan.

    Args:
        connection: to the mapped database.
        state: the state database.
        clock: ours.

    Returns:
        The moment by our clock.

    Raises:
        ControlFailed: they differ, or ours was set back behind a plan that was made already.
    """
    now = clock.now()
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    with state.connect() as conn:
        theirs: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
        last = conn.scalar(select(func.max(disposition.c.planned_at)))
    for name, moment in (("mapped database", row[0]), ("state database", theirs)):
        if abs(moment - now) > APART:
            raise ControlFailed(
                f"The clock here says {now:%Y-%m-%d %H:%M} UTC, that of the {name} "
                f"{moment:%Y-%m-%d %H:%M} ({moment:%z}).",
                "Nothing was deleted. Set the wrong clock right; records expire by it.",
            )
    if last is not None and last > now + APART:
        raise ControlFailed(
            f"The clock here says {now:%Y-%m-%d %H:%M} UTC, and a plan was made at "
            f"{last:%Y-%m-%d %H:%M} ({last:%z}).",
            "Nothing was deleted. Find out which clock was wrong; if it was the earlier one, "
            "records may have been deleted too early.",
        )
    return now
