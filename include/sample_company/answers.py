"""The answer sheet of a sample database: the list of planted rows and of other expected results.

A planted row is a row that the generator made unusual on purpose, for example with an invalid phone
number. Tests compare the results of workflows with the answer sheet.
"""

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
    """All rows of one table that meet a rule of `include.sample_company.rules`.

    Attributes:
        table: name of the table.
        key: names of the columns that form the key of a row.
        rule: condition of the rule in words. The rows of this set meet the condition, and no other
            row of the table does.
        count: number of rows.
        ranges: keys of the rows if the key is a single column, as ranges of consecutive numbers.
            Each range consists of its first and its last number.
        rows: keys of the rows if the key has several columns.
    """

    table: str
    key: tuple[str, ...]
    rule: str
    count: int
    ranges: tuple[tuple[int, int], ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()

    def keys(self) -> Iterator[int]:
        """Yield the keys of the rows in ascending order. The key must be a single column."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


class Canary(FrozenModel):
    """A unique value of one customer, with which tests find out whether customer data has leaked.

    Tests search for the value in outputs that must not contain customer data, such as logs and
    reports.

    Attributes:
        value: text that no other value of the sample database contains.
        kind: type of the value: name, phone, id_number, email, street or token.
        customer_id: id of the customer to whom the value belongs.
        places: ``table.column`` and primary key of each known record that contains the value.
            Records that are not listed may contain it, too.
    """

    value: str
    kind: str
    customer_id: int
    places: tuple[tuple[str, int], ...]


class IncidentAnswer(FrozenModel):
    """The expected result of computing the scope of a sample incident.

    Attributes:
        name: name of the incident.
        selection: what a person enters to describe the scope, such as accounts, times or keys.
            Times are ISO texts with UTC offset.
        subjects: number of affected customers.
        records: name of the collection -> number of affected records.
        sensitive: number of affected customers who are under 14, or whose ID number or religion is
            affected.
        minors: number of affected customers under 14.
        age_unknown: number of affected customers without a birth date.
        grade: grade of the incident that follows from these numbers.
        log_rows: number of log entries that name affected customers.
        not_found: number of keys in ``selection`` that do not exist in the database.
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
    """The settings of a sample database, and the results that tests expect from it.

    The same seed, number of customers and time give the same answer sheet.

    Attributes:
        seed: seed of the random numbers.
        customers: number of customers.
        as_of: time for which the database was generated. Ages of records are measured from it.
        tables: name of the table -> number of rows.
        planted: name of a rule of `include.sample_company.rules` -> rows that meet the rule because
            the generator made them so.
        canaries: unique values of customers, with which tests search for leaked customer data.
        duties: courses that current employees have to take, with their due dates as of ``as_of``.
        incidents: expected scopes of the sample incidents.
    """

    seed: int
    customers: int
    as_of: datetime
    tables: dict[str, int]
    planted: dict[str, RowSet]
    canaries: tuple[Canary, ...]
    duties: tuple[Duty, ...] = ()
    incidents: tuple[IncidentAnswer, ...] = ()


class AnswerSheetBuilder:
    """Collects the content of the answer sheet while the sample database is generated."""

    def __init__(self) -> None:
        self._ranges: dict[str, list[tuple[int, int]]] = {name: [] for name in RULES}
        self._rows: dict[str, list[tuple[int, ...]]] = {name: [] for name in RULES}
        self._canaries: dict[tuple[int, str, str], list[tuple[str, int]]] = {}
        self.duties: list[Duty] = []
        self.incidents: tuple[IncidentAnswer, ...] = ()

    def add(self, rule: str, keys: Ints | Iterable[int]) -> None:
        """Add rows that meet a rule, in a table whose key is a single column.

        Args:
            rule: name of the rule of `include.sample_company.rules` that the rows meet.
            keys: keys of the rows in ascending order. They must be greater than the keys of all
                earlier calls for the same rule.
        """
        numbers = np.asarray(keys if isinstance(keys, np.ndarray) else list(keys), np.int64)
        if not numbers.size:
            return
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        firsts = numbers[np.concatenate(([0], breaks + 1))].tolist()
        lasts = numbers[np.concatenate((breaks, [len(numbers) - 1]))].tolist()
        ranges = self._ranges[rule]
        if ranges and firsts[0] == ranges[-1][1] + 1:
            firsts[0] = ranges.pop()[0]
        ranges.extend(zip(firsts, lasts, strict=True))

    def add_rows(self, rule: str, keys: Iterable[tuple[int, ...]]) -> None:
        """Add rows that meet a rule, in a table whose key has several columns.

        Args:
            rule: name of the rule of `include.sample_company.rules` that the rows meet.
            keys: keys of the rows.
        """
        self._rows[rule].extend(keys)

    def add_canary(self, customer: int, kind: str, value: str, column: str, key: int) -> None:
        """Add a record that contains a canary value (see `Canary`) to the answer sheet.

        Args:
            customer: id of the customer to whom the value belongs.
            kind: type of the value, as in `Canary`.
            value: the canary value.
            column: table and column that contain the value, as ``table.column``.
            key: primary key of the record.
        """
        self._canaries.setdefault((customer, kind, value), []).append((column, key))

    def sheet(
        self, seed: int, customers: int, as_of: datetime, tables: dict[str, int]
    ) -> AnswerSheet:
        """Return the answer sheet with everything that was added.

        Args:
            seed: seed of the random numbers.
            customers: number of customers.
            as_of: time for which the database was generated.
            tables: name of the table -> number of rows.
        """
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
