"""How many records a collection has, and how many of them each rule is about.

To count them takes a look at every record. A usual run carries the figures of an earlier one on as
long as they decide every rule: whatever was written or deleted since, the outcome is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from include.expectations.check import Snapshot
from include.expectations.conditions import Records, selected
from include.policy.expectations import Expectation
from include.policy.kwargs import Satisfy, says_now
from include.quality.history import LastCheck
from include.quality.judge import holds

_LOOKS_ELSEWHERE = re.compile(r"\b(select|table)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Counts:
    """Numbers of records.

    Attributes:
        rows: of the collection.
        about: by rule, where that is not all of them.
        carried: they are of an earlier check.
        off: how far each may be off, then: as many records were written or deleted since.
        unknown: rules of which it is not known how many records they are about.
    """

    rows: int
    about: Mapping[str, int] = field(default_factory=dict)
    carried: bool = False
    off: int = 0
    unknown: frozenset[str] = frozenset()

    def of(self, rule: str) -> int:
        """The records that a rule is about."""
        return self.about.get(rule, self.rows)

    def after(self, changed: int) -> Counts:
        """The same when so many more records were written."""
        return replace(self, off=self.off + changed)

    def decide(self, rule: Expectation, broken: int) -> bool:
        """Whether a rule's outcome is the same however far they are off.

        How many records a condition selects may change with time and other tables, too, though
        nobody writes to them.
        """
        known = self.of(rule.id)
        off = self.rows + self.off if _moves_by_itself(rule) else self.off
        if not self.carried or not off:
            return True
        least = max(known - off, broken)
        if not known or not least or broken > known:
            return False  # none that the rule is about is a finding of its own
        outcomes = {holds(rule, one, broken) for one in (least, known, known + off)}
        return len(outcomes) == 1


def _moves_by_itself(rule: Expectation) -> bool:
    """Whether time or another table may change whom a rule is about."""
    kwargs = rule.kwargs
    where = getattr(kwargs, "where", None)
    # A record has no answer where its condition has none; that of related records is about them.
    condition = kwargs.condition if isinstance(kwargs, Satisfy) else None
    return says_now({"where": where, "condition": condition}) or any(
        sql and _LOOKS_ELSEWHERE.search(sql) for sql in (where, condition)
    )


def count(
    view: Snapshot, records: Records, expectations: Sequence[Expectation], now: datetime
) -> Counts | None:
    """Count the records; None where they cannot be counted, or not all of them."""
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
    """How many records there are, and how many meet each condition; None where that fails."""
    number = sa.func.count()
    query = sa.select(number, *(number.filter(one) for one in conditions))
    try:
        with view.savepoint(), view.engine.connect() as conn:
            return list(conn.execute(query.select_from(records.selectable)).one())
    except SQLAlchemyError:
        return None


def carried(
    last: LastCheck, expectations: Sequence[Expectation], now: datetime, off: int
) -> Counts | None:
    """The figures of an earlier check; None where they do not say how many records there are.

    Args:
        last: that check.
        expectations: of the collection.
        now: the present moment.
        off: how far they may be off.
    """
    about = {
        one.id: last.rows.get(one.id) for one in expectations if selected(one, now) is not None
    }
    known = {rule: amount for rule, amount in about.items() if amount is not None}
    if not last.all_rows or len(known) < len(about):
        return None
    return Counts(last.all_rows, known, True, off)
