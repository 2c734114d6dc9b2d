"""Generated tables with many foreign keys, for `benchmarks.retention`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from include.policy.retention import RetentionRule

EXPIRED = 0.3  # share of expired records in each table
BLOCK = 50  # consecutive records of a table that may refer to each other
_STEP = timedelta(minutes=1)  # between records of a table


@dataclass(frozen=True)
class GeneratedGraph:
    """Tables with foreign keys to the tables before them.

    Attributes:
        tables: number of tables.
        keys: number of foreign keys of each table.
        rows: number of rows of all tables together.
        moment: the cutoff; records before it are expired.
        cycles: whether the first tables refer to the last tables, and some tables to themselves.
        by_uuid: whether keys are UUIDs instead of numbers.
    """

    tables: int
    keys: int
    rows: int
    moment: datetime
    cycles: bool = False
    by_uuid: bool = False

    @property
    def names(self) -> list[str]:
        """Return the names of the tables."""
        return [f"node_{at}" for at in range(self.tables)]

    @property
    def rows_of_table(self) -> int:
        """Return how many rows each table has."""
        return max(1, self.rows // self.tables)

    def parents(self, table: int) -> list[int]:
        """Return the indexes of the tables that the keys of a table reference."""
        if not self.cycles:
            return [table - 1] * self.keys if table else []
        far = [1, 0 if table % 5 == 0 else 2, 7, 13]
        return [(table - far[key % len(far)]) % self.tables for key in range(self.keys)]

    def make(self, connection: psycopg.Connection) -> None:
        """Create and fill the tables.

        A record refers to records of its block of `BLOCK` only, so that few expired records are
        kept.
        """
        each = self.rows_of_table
        kind = "uuid" if self.by_uuid else "bigint"
        number = "md5({} || '')::uuid" if self.by_uuid else "{}"
        first = self.moment - _STEP * int(each * EXPIRED)
        for table, name in enumerate(self.names):
            parents = self.parents(table)
            columns = "".join(f", key_{key} {kind}" for key in range(len(parents)))
            back = [
                f"CASE WHEN (n - 1) % {BLOCK} > {key} THEN "
                + number.format(f"(n - 1 - {key})")
                + " END"
                for key in range(len(parents))
            ]
            values = ", ".join([number.format("n"), _clock(first), "repeat('x', 40)", *back])
            for text in (
                f"CREATE TABLE {name} (id {kind}, at timestamptz NOT NULL, note text{columns})",
                f"INSERT INTO {name} SELECT {values} FROM generate_series(1, {each}) AS n",  # noqa: S608 - constants
                f"ALTER TABLE {name} ADD PRIMARY KEY (id)",
            ):
                connection.execute(text.encode())
        for text in self._foreign_keys():
            connection.execute(text.encode())
        connection.execute("VACUUM (ANALYZE)")

    def _foreign_keys(self) -> Iterator[str]:
        for table, name in enumerate(self.names):
            for key, parent in enumerate(self.parents(table)):
                yield f"ALTER TABLE {name} ADD FOREIGN KEY (key_{key}) REFERENCES node_{parent}"

    def counts(self) -> list[str]:
        """Return plain counts of the expired records to which no unexpired record refers.

        They follow one level of foreign keys; a plan follows chains and cycles to their end.
        """
        cutoff = f"'{self.moment.isoformat()}'"
        leading: dict[int, list[str]] = {}
        for table, name in enumerate(self.names):
            for key, parent in enumerate(self.parents(table)):
                leading.setdefault(parent, []).append(
                    f" AND NOT EXISTS (SELECT FROM {name} AS c WHERE c.key_{key} = t.id "
                    f"AND c.at >= {cutoff})"
                )
        query = "SELECT count(*) FROM {} AS t WHERE t.at < {}{}"
        return [
            query.format(name, cutoff, "".join(leading.get(table, ())))
            for table, name in enumerate(self.names)
        ]

    def rules(self) -> list[RetentionRule]:
        """Return a record class for each table."""
        return [
            RetentionRule.model_validate(
                {
                    "class": f"{name}_record",
                    "collection": name,
                    "clock": "at",
                    "period": "P3Y",
                    "action": "delete",
                    "basis": "business",
                }
            )
            for name in self.names
        ]


def _clock(first: datetime) -> str:
    return f"'{first.isoformat()}'::timestamptz + n * interval '1 minute'"
