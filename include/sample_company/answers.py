"""The answer sheet: what was planted in a sample, by rule and primary key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np

from include.frozen import FrozenModel
from include.sample_company.chance import Ints
from include.sample_company.employee import Duty
from include.sample_company.rules import RULES


class RowSet(FrozenModel):
    """The rows that a rule is about.

    Attributes:
        table: table they are in.
        key: columns that name a row.
        rule: the condition that these rows meet and no other row of the table does.
        count: how many rows.
        ranges: keys of one column, as runs of consecutive numbers, both ends included.
        rows: keys of several columns.
    """

    table: str
    key: tuple[str, ...]
    rule: str
    count: int
    ranges: tuple[tuple[int, int], ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()

    def keys(self) -> Iterator[int]:
        """Each key of a one-column set, ascending."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


class Canary(FrozenModel):
    """A marked value, to be searched for wherever no customer value may be.

    Attributes:
        value: the text; nothing else in the sample contains it.
        kind: name, phone, id_number, email, street or token.
        customer_id: the customer it was made for.
        places: ``table.column`` and primary key of where it was put, at the least.
    """

    value: str
    kind: str
    customer_id: int
    places: tuple[tuple[str, int], ...]


class IncidentAnswer(FrozenModel):
    """What one incident affects.

    Attributes:
        name: of the incident.
        selection: what is entered; moments as ISO texts with their offset.
        subjects: customers.
        records: records by collection.
        sensitive: customers of whom an ID number or a religion is affected, or who are under 14.
        minors: customers under 14.
        age_unknown: customers without a birth date.
        grade: that these figures reach.
        log_rows: entries of the logs that say so.
        not_found: listed keys that are not there.
    """

    name: str
    selection: dict[str, Any]
    subjects: int
    records: dict[str, int]
    sensitive: int
    minors: int
    age_unknown: int
    grade: str
    log_rows: int = 0
    not_found: int = 0


class AnswerSheet(FrozenModel):
    """What a sample holds; the same for the same seed, size and moment.

    Attributes:
        seed: of the sample.
        customers: how many.
        as_of: the moment of the sample; periods count back from it.
        tables: rows of each table.
        planted: row sets by the name of their rule (``include.sample_company.rules``).
        canaries: every marked value.
        duties: courses that people have to take, as of no day: nothing was taken since the moment.
        incidents: whom some incidents would affect.
    """

    seed: int
    customers: int
    as_of: datetime
    tables: dict[str, int]
    planted: dict[str, RowSet]
    canaries: tuple[Canary, ...]
    duties: tuple[Duty, ...] = ()
    incidents: tuple[IncidentAnswer, ...] = ()


class Notes:
    """Collects the answer sheet while the rows are made."""

    def __init__(self) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {name: [] for name in RULES}
        self._rows: dict[str, list[tuple[int, ...]]] = {name: [] for name in RULES}
        self._canaries: dict[tuple[int, str, str], list[tuple[str, int]]] = {}
        self.duties: list[Duty] = []
        self.incidents: tuple[IncidentAnswer, ...] = ()

    def add(self, rule: str, keys: Ints | Iterable[int]) -> None:
        """Note rows of a rule; keys ascend from call to call and within one."""
        found = np.asarray(keys if isinstance(keys, np.ndarray) else list(keys), np.int64)
        if not found.size:
            return
        breaks = np.flatnonzero(np.diff(found) != 1)
        firsts = found[np.concatenate(([0], breaks + 1))].tolist()
        lasts = found[np.concatenate((breaks, [len(found) - 1]))].tolist()
        ranges = self._ranges[rule]
        if ranges and firsts[0] == ranges[-1][1] + 1:
            firsts[0] = ranges.pop()[0]
        ranges.extend(zip(firsts, lasts, strict=True))

    def add_rows(self, rule: str, keys: Iterable[tuple[int, ...]]) -> None:
        """Note rows of a rule whose key has several columns."""
        self._rows[rule].extend(keys)

    def canary(self, customer: int, kind: str, value: str, place: str, key: int) -> None:
        """Note where a marked value was put."""
        self._canaries.setdefault((customer, kind, value), []).append((place, key))

    def sheet(
        self, seed: int, customers: int, as_of: datetime, tables: dict[str, int]
    ) -> AnswerSheet:
        """The finished answer sheet."""
        return AnswerSheet(
            seed=seed,
            customers=customers,
            as_of=as_of,
            tables=tables,
            planted={
                name: RowSet(
                    table=rule.table,
                    key=rule.key,
                    rule=rule.text,
                    count=sum(last - first + 1 for first, last in self._ranges[name])
                    + len(self._rows[name]),
                    ranges=tuple(self._ranges[name]),
                    rows=tuple(self._rows[name]),
                )
                for name, rule in RULES.items()
            },
            duties=tuple(self.duties),
            incidents=self.incidents,
            canaries=tuple(
                Canary(value=value, kind=kind, customer_id=customer, places=tuple(places))
                for (customer, kind, value), places in self._canaries.items()
            ),
        )
