"""Days and moments in the pack's timezone, as SQL."""

from __future__ import annotations

from datetime import date, datetime

import sqlalchemy as sa

from include.expectations.types import ColumnType, Kind, text_literal
from include.policy.period import Period


def in_zone(timestamp: str, timezone: str) -> str:
    """Return a local timestamp as the moment that it is in a timezone, or a moment as a local one.

    Args:
        timestamp: as SQL.
        timezone: IANA name.
    """
    return f"({timestamp} AT TIME ZONE {text_literal(timezone)})"


def local_form(column: str, kind: ColumnType, timezone: str, as_day: bool) -> str:
    """Return a day or moment as a local one: a date, or a timestamp without timezone.

    Args:
        column: as SQL.
        kind: of the column.
        timezone: IANA name of the pack's timezone.
        as_day: whether a date is wanted.
    """
    local = in_zone(column, timezone) if kind.kind is Kind.MOMENT else column
    return f"{local}::date" if as_day else f"{local}::timestamp"


def before(
    now: datetime, period: Period, timezone: str, kind: Kind
) -> sa.ColumnElement[date] | sa.ColumnElement[datetime]:
    """Return the day or moment that lies a period before another moment.

    PostgreSQL counts back once, not for every record, and in its own calendar.

    Args:
        now: the moment.
        period: years to days are counted in the timezone, hours to seconds are of equal length.
        timezone: IANA name.
        kind: of the column that is compared: a day, a local timestamp or a moment.
    """
    days = sa.func.make_interval(0, period.months, 0, period.days)
    seconds = sa.func.make_interval(0, 0, 0, 0, 0, 0, period.seconds)
    local = sa.func.timezone(timezone, sa.cast(now, sa.DateTime(timezone=True))) - days
    moment = sa.func.timezone(timezone, local) - seconds
    if kind in (Kind.DAY, Kind.LOCAL):
        moment = sa.func.timezone(timezone, moment)
    type_ = sa.Date() if kind is Kind.DAY else sa.DateTime(timezone=kind is not Kind.LOCAL)
    return sa.select(sa.cast(moment, type_)).scalar_subquery()
