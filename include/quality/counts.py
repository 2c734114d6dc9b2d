"""How many records a collection has, and how many of them each rule is about.

To count them takes a look at every record. A usual run carries the figures of an earlier one on as
long as they decide every rule: whatever was written or deleted since, the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.expectations.check import Snapshot
from include.expectations.conditions import Records, selected
from include.policy.expectations import Expectation
from include.quality.judge import holds


@dataclass(frozen=True)
class Counts:
    """Numbers of records.

    Attributes:
        rows: of the collection.
        about: by rule, where that is not all of them.
        carried: they are of an earlier check.
        off: how far each may be off, then: as many records were written or deleted since.
    """

    rows: int
    about: Mapping[str, int] = field(default_factory=dict)
    carried: bool = False
    off: int = 0

    def of(self, rule: str) -> int:
        """The records that a rule is about."""
        return self.about.get(rule, self.rows)

    def after(self, changed: int) -> Counts:
        """The same when so many more records were written."""
        return replace(self, off=self.off + changed)

    def decide(self, rule: Expectation, broken: int) -> bool:
        """Whether a rule is met or not, however far they are off.

        That a rule is no longer about any record is left to the next count.
        """
        known = self.of(rule.id)
        if self.off and (not known or broken > known):
            return False
        least = max(known - self.off, broken, 1)
        return holds(rule, least, broken) == holds(rule, known + self.off, broken)


def count(
    view: Snapshot, records: Records, expectations: Sequence[Expectation], now: datetime
) -> Counts | None:
    """Count the records; None where they may not be read, or not all of them."""
    rows = sa.func.count()
    wanted = {
        one.id: condition for one in expectations if (condition := selected(one, now)) is not None
    }
    different = {str(one): one for one in wanted.values()}
    query = sa.select(rows, *(rows.filter(one) for one in different.values()))
    try:
        with view.savepoint(), view.engine.connect() as conn:
            found, *about = conn.execute(query.select_from(records.selectable)).one()
        amounts = dict(zip(different, about, strict=True))
        return Counts(found, {rule: amounts[str(one)] for rule, one in wanted.items()})
    except SQLAlchemyError:  # one of the conditions is wrong, as its own rule will say
        try:
            with view.savepoint(), view.engine.connect() as conn:
                return Counts(conn.scalar(sa.select(rows).select_from(records.table)) or 0)
        except SQLAlchemyError:  # no right to read, or row security would hide records
            return None


def carried(
    last: Mapping[str, int | None], expectations: Sequence[Expectation], now: datetime, off: int
) -> Counts | None:
    """The figures of an earlier check; None where they do not say how many records there are.

    Args:
        last: rows of each rule at that check.
        expectations: of the collection.
        now: the present moment.
        off: how far they may be off.
    """
    known = {one.id: last.get(one.id) for one in expectations}
    of_all = [one.id for one in expectations if selected(one, now) is None]
    rows = next((known[one] for one in of_all), None)
    about = {rule: amount for rule, amount in known.items() if amount is not None}
    if rows is None or len(about) < len(known):
        return None
    return Counts(rows, {rule: one for rule, one in about.items() if rule not in of_all}, True, off)
