"""Which databases, collections and rules the register has heard of, now or ever."""

from __future__ import annotations

from sqlalchemy import Connection, select

from include.state.tables import quarantine


def names(conn: Connection, kind: str) -> list[str]:
    """The names of one kind that stand in the register, resolved entries included.

    Args:
        conn: to the state database.
        kind: ``database``, ``collection`` or ``rule``.
    """
    column = quarantine.c[kind]
    return list(conn.scalars(select(column).distinct().order_by(column)))
