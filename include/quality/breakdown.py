"""What the broken records of a collection belong to: a department, a branch."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.check import Snapshot
from include.expectations.conditions import OTHER, RECORD, Records, quoted, table_of
from include.messages import _
from include.policy.expectations import Suite

LONGEST = 200  # characters of a name; it stands beside every broken record


def part_of(
    view: Snapshot, records: Records, suite: Suite, seen: StepFindings, subject: str
) -> sa.ColumnElement[Any] | None:
    """SQL for what a record belongs to; None where nobody asked, or it cannot be read.

    Args:
        view: the snapshot that is checked.
        records: of the suite.
        suite: says what its records belong to.
        seen: gets a finding where that cannot be read.
        subject: of the finding.
    """
    part = _named(records, suite)
    if part is None:
        return None
    try:
        with view.savepoint(), view.engine.connect() as conn:
            conn.execute(sa.select(part).select_from(records.selectable).limit(0))
    except SQLAlchemyError:  # renamed, or no right to it: no reason to judge no rule
        seen.find(
            "quality.no_breakdown",
            Outcome.ATTENTION,
            _("What the broken records belong to could not be read."),
            _("Correct the breakdown in the policy pack, or grant the reader what it names."),
            subject=subject,
        )
        return None
    return part


def _named(records: Records, suite: Suite) -> sa.ColumnElement[Any] | None:
    by = suite.breakdown
    if by is None or by.column not in records.columns:
        return None
    mine: sa.ColumnElement[Any] = sa.literal_column(quoted(RECORD, by.column))
    if by.collection is None or by.label is None:  # the pack's check lets no personal one pass
        return _short(mine)
    other = records.database.collections[by.collection]
    key = other.primary_key
    if len(key) != 1:
        return _short(mine)
    named = table_of(other, (*key, by.label)).alias(OTHER)
    label: sa.ColumnElement[Any] = sa.literal_column(quoted(OTHER, by.label))
    same = sa.literal_column(quoted(OTHER, key[0])) == mine
    # The least, since only the data map says that there is one.
    return sa.select(sa.func.min(_short(label))).select_from(named).where(same).scalar_subquery()


def _short(name: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.left(sa.cast(name, sa.Text), LONGEST)
