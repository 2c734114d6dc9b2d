"""Incremental checks, which examine the records that changed since the last check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.expectations.broken import Key
from include.expectations.check import MOST_NAMED, reason_of
from include.expectations.conditions import SOURCE, Records
from include.messages import Message, _
from include.policy.expectations import Expectation
from include.policy.kwargs import ColumnList, Distinct, Related, RowCount, Satisfy
from include.quality import history
from include.quality.history import FULL_EVERY, LastCheck
from include.quality.watermark import VERSION, ChangeTracking, Watermark
from include.workflow.run_context import RunContext

MOST_CHANGED = 0.2  # share of the records above which one scan of all costs less


def compares_records(rule: Expectation) -> bool:
    """Return whether a rule compares records with each other, or counts them.

    Changed records alone do not decide such a rule: only a full check examines it.
    """
    return (
        isinstance(rule.kwargs, ColumnList | Distinct | RowCount)
        or rule.type == "expect_column_values_to_be_unique"
    )


def examines_all(rule: Expectation) -> bool:
    """Return whether every check examines all records for a rule (its `scope` is ``all``)."""
    kwargs = rule.kwargs
    return rule.depends_on_time or (isinstance(kwargs, Satisfy | Related) and kwargs.scope == "all")


class IncrementalFigures(BaseModel):
    """The records that an incremental check read.

    Attributes:
        column: the change column.
        since: its lowest value that was read.
        margin: for late arrivals, as in the policy pack.
        full_at: when the last full check was made.
        full_due: when the next one is due.
        sees_open_transactions: whether open transactions limit the watermark.
        has_timezone: whether the column's values have a timezone.
    """

    column: str
    since: str
    margin: str
    full_at: datetime
    full_due: datetime
    sees_open_transactions: bool
    has_timezone: bool = True


@dataclass(frozen=True)
class IncrementalCheck:
    """The scope of an incremental check of a collection.

    Attributes:
        records: the records that changed or may have changed.
        keys: their keys, each column as text.
        last: the last sealed check.
        tracking: reads the change column.
        since: the lowest value of the change column that is read.
    """

    records: Records
    keys: Sequence[Key]
    last: LastCheck
    tracking: ChangeTracking
    since: str

    @property
    def figures(self) -> IncrementalFigures:
        """The figures of the report; they hold no customer value."""
        return IncrementalFigures(
            column=self.tracking.changed.column,
            since=self.since,
            margin=str(self.tracking.changed.late_arrivals),
            full_at=self.last.full_at,
            full_due=self.last.full_at + FULL_EVERY,
            sees_open_transactions=self.tracking.sees_open_transactions,
            has_timezone=self.tracking.type == "timestamptz",
        )


def incremental_check(
    conn: Connection,
    records: Records,
    tracking: ChangeTracking,
    watermark: Watermark,
    expectations: Sequence[Expectation],
    run: RunContext[None],
    at: datetime,
) -> IncrementalCheck | Message:
    """Return the scope of an incremental check, or the reason for a full one.

    Args:
        conn: to the state database, outside of a transaction.
        records: the records of the collection.
        tracking: reads the change column.
        watermark: the watermark of this run's snapshot.
        expectations: the expectations of the collection.
        run: the run that checks.
        at: the moment of the check.
    """
    if run.parameters.get("full"):
        return _("a full check was requested")
    place = (records.database.name, records.collection.name)
    with conn.begin():
        last = history.last_check(conn, *place, expectations, at)
    if isinstance(last, Message):
        return last
    if last.watermark.version != VERSION:
        return _("another version made the last check")
    if last.watermark.identity != watermark.identity:
        return _(
            "the table was rewritten, altered, emptied or restored, or the policy pack names "
            "another change column or timezone"
        )
    behind = tracking.is_behind(last.watermark)
    if isinstance(behind, Message):
        return behind
    if behind:
        return _(
            "all values of its column {column} are older than at the last check, as after a "
            "restore",
            column=tracking.changed.column,
        )
    since = tracking.bound(last.watermark)
    if isinstance(since, Message):
        return since
    changed = sa.literal_column(tracking.condition(since, SOURCE), sa.Boolean)
    most = min(int(last.all_rows * MOST_CHANGED), MOST_NAMED)
    keys = _keys(tracking, replace(records, where=changed), most)
    if isinstance(keys, Message):
        return keys
    if len(keys) > most:
        return _(
            "more than {most} records changed, or have no value in the change column", most=most
        )
    return IncrementalCheck(replace(records, where=changed, few=True), keys, last, tracking, since)


def _keys(tracking: ChangeTracking, records: Records, most: int) -> list[Key] | Message:
    """Return the keys of records, at most ``most + 1``."""
    view = tracking.view
    source = records.table.alias(SOURCE)
    key = [sa.cast(source.c[name], sa.Text) for name in records.key]
    assert records.where is not None
    query = sa.select(*key).select_from(source).where(records.where).limit(most + 1)
    try:
        with view.savepoint(), view.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]
    except SQLAlchemyError:
        return reason_of(view.first_failure)
