"""Count the records of a collection, and the records to which each rule applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.expectations.check import Snapshot
from include.expectations.conditions import Records, selected
from include.policy.expectations import Expectation


@dataclass(frozen=True)
class Counts:
    """Numbers of records.

    Attributes:
        rows: all records of the collection.
        about: records to which a rule applies, by rule; all records if the rule is missing.
        unknown: rules whose records could not be counted.
        by_last_full: the last full check counted them.
    """

    rows: int
    about: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    by_last_full: bool = False

    def of(self, rule: str) -> int:
        """Return the number of records to which a rule applies."""
        return self.about.get(rule, self.rows)


def count(
    view: Snapshot, records: Records, expectations: Sequence[Expectation], now: datetime
) -> Counts | None:
    """Count the records; return None where they cannot be counted, or not all of them."""
    wanted = {
        one.id: condition for one in expectations if (condition := selected(one, now)) is not None
    }
    different = {str(one): one for one in wanted.values()}
    found = _count(view, records, list(different.values()))
    if found is not None:
        rows, *about = found
        amounts = dict(zip(different, about, strict=True))
    elif view.first_failure.startswith("57"):
        return None  # whoever cancelled the query does not want to see it again
    else:  # one of the conditions is wrong, as its own rule will say
        alone = _count(view, records, [])
        if alone is None:
            return None
        (rows,) = alone
        each = {name: _count(view, records, [one]) for name, one in different.items()}
        amounts = {name: one[1] for name, one in each.items() if one is not None}
    known = {rule: amounts[str(one)] for rule, one in wanted.items() if str(one) in amounts}
    return Counts(rows, known, unknown=frozenset(wanted.keys() - known.keys()))


def _count(
    view: Snapshot, records: Records, conditions: Sequence[sa.ColumnElement[bool]]
) -> list[int] | None:
    """Count all records and those that meet each condition; return None where that fails."""
    number = sa.func.count()
    query = sa.select(number, *(number.filter(one) for one in conditions))
    try:
        with view.savepoint(), view.engine.connect() as conn:
            return list(conn.execute(query.select_from(records.selectable)).one())
    except SQLAlchemyError:
        return None
