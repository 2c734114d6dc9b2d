"""Incremental checks, which examine only the records that changed since the newest sealed check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from include.expectations.broken import Key
from include.expectations.check import MOST_NAMED, fault_of
from include.expectations.conditions import SOURCE, Records
from include.messages import Message, _
from include.policy.expectations import Expectation
from include.policy.kwargs import ColumnList, Distinct, Related, RowCount, Satisfy
from include.quality import history
from include.quality.history import FULL_EVERY, LastCheck
from include.quality.watermark import VERSION, ChangeTracking, Watermark
from include.workflow.run_context import RunContext

MOST_CHANGED = 0.2  # if a larger share of the records changed, a scan of all records is faster


def compares_records(rule: Expectation) -> bool:
    """Return whether an expectation compares records with each other, or counts them.

    Only a full check examines such an expectation, because its result depends on unchanged records
    too.
    """
    return (
        isinstance(rule.kwargs, ColumnList | Distinct | RowCount)
        or rule.type == "expect_column_values_to_be_unique"
    )


def examines_all(rule: Expectation) -> bool:
    """Return whether even an incremental check examines all records for an expectation.

    This is the case if the expectation's `scope` is ``all`` or its result depends on the time.
    """
    kwargs = rule.kwargs
    return rule.depends_on_time or (isinstance(kwargs, Satisfy | Related) and kwargs.scope == "all")


class IncrementalFigures(BaseModel):
    """Facts about the records that an incremental check read.

    Attributes:
        column: the change column.
        since: lowest value of the change column that was read.
        margin: distance between `since` and the last watermark, as the policy pack states it. A
            record that was added late, with a value below the watermark, is read only if its value
            is not below `since`.
        full_at: time of the newest full check.
        full_due: time when the next full check is due.
        sees_open_transactions: whether the watermark is at or before the start of the oldest open
            transaction. If so, the next check also reads records that transactions had not yet
            committed at this check.
        has_timezone: whether the values of the change column have a timezone.
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
    """The records that an incremental check of a collection examines.

    Attributes:
        records: the records that changed, or may have changed, since the newest sealed check.
        keys: primary keys of these records. The value of each key column is text.
        last: the newest sealed check.
        tracking: reader of the change column.
        since: lowest value of the change column to read.
    """

    records: Records
    keys: Sequence[Key]
    last: LastCheck
    tracking: ChangeTracking
    since: str

    @property
    def figures(self) -> IncrementalFigures:
        """Return the facts about this check for the report, without customer data."""
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
    """Return the records for an incremental check, or the reason why a full check is required.

    Args:
        conn: connection to the state database, outside of a transaction.
        records: the records of the collection.
        tracking: reader of the change column.
        watermark: the watermark of this run's snapshot.
        expectations: the expectations of the collection.
        run: context of the run.
        at: time of the check.
    """
    if run.parameters.get("full"):
        return _("a full check was requested")
    collection_key = (records.database.name, records.collection.name)
    with conn.begin():
        last = history.last_check(conn, *collection_key, expectations, at)
    if isinstance(last, Message):
        return last
    if last.watermark.version != VERSION:
        return _("the last check was made by another version of ParcelSeal")
    if last.watermark.identity != watermark.identity:
        return _(
            "the table was rewritten, altered, emptied or restored since the last check, or "
            "the policy pack now names another change column or timezone"
        )
    is_behind = tracking.is_behind(last.watermark)
    if isinstance(is_behind, Message):
        return is_behind
    if is_behind:
        return _(
            "all values of the column {column} are older than at the last check; the table may "
            "have been restored from a backup",
            column=tracking.changed.column,
        )
    since = tracking.lowest_value_to_read(last.watermark)
    if isinstance(since, Message):
        return since
    changed = sa.literal_column(tracking.condition(since, SOURCE), sa.Boolean)
    most = min(int(last.all_rows * MOST_CHANGED), MOST_NAMED)
    keys = _keys(tracking, replace(records, where=changed), most)
    if isinstance(keys, Message):
        return keys
    if len(keys) > most:
        return _(
            "more than {limit} records are new or changed, or have no value in the change column",
            limit=most,
        )
    return IncrementalCheck(replace(records, where=changed, few=True), keys, last, tracking, since)


def _keys(tracking: ChangeTracking, records: Records, most: int) -> list[Key] | Message:
    """Return the primary keys of records, or the reason why they cannot be read.

    Args:
        tracking: reader of the change column.
        records: records of the collection, with the condition that selects the changed records.
        most: largest number of records for an incremental check. If there are more, ``most + 1``
            keys are returned.
    """
    view = tracking.view
    source = records.table.alias(SOURCE)
    key = [sa.cast(source.c[name], sa.Text) for name in records.key]
    assert records.where is not None
    query = sa.select(*key).select_from(source).where(records.where).limit(most + 1)
    try:
        with view.savepoint(), view.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]
    except SQLAlchemyError:
        return fault_of(view.first_failure).with_detail
