"""An incoming table under its rule: the names that every statement about it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Identifier, Literal

from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.intake import IntakeRule
from include.services.errors import UsageError

CLAUSE = "5.2"
LONGEST_BATCH = 100  # characters of a batch's name; a longer one is no name
_PLAIN = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True)
class Incoming:
    """An incoming table: its rule and where it is.

    Attributes:
        rule: of intake.yaml.
        database: the mapped database.
    """

    rule: IntakeRule
    database: MappedDatabase

    @property
    def collection(self) -> MappedCollection:
        """The incoming collection."""
        return self.database.collections[self.rule.collection]

    @property
    def key(self) -> tuple[str, ...]:
        """Columns of its primary key.

        Raises:
            UsageError: the data map marks none, so that no row could be told from another.
        """
        found = self.collection.primary_key
        if not found:
            raise UsageError(
                f"The data map marks no primary key of {self.rule.collection}.",
                "Write fides_meta: {primary_key: true} at its columns.",
            )
        return found

    @property
    def table(self) -> Composable:
        """The incoming table's name."""
        return self.table_of(self.rule.collection)

    @property
    def staff(self) -> Composable:
        """The staff table's name."""
        return self.table_of(self.rule.people.collection)

    def table_of(self, collection: str) -> Composable:
        """The name of a collection's table."""
        found = self.database.collections[collection]
        return Identifier(found.schema_name, found.table)

    def pending(self, batch: str) -> Composable:
        """The condition of a batch's rows that nobody has decided on, without parameters.

        Literals have no type of their own, so PostgreSQL reads them as the column's and its index
        serves.
        """
        return SQL("{} = {} AND {} = {}").format(
            Identifier(self.rule.batch),
            Literal(batch),
            Identifier(self.rule.state.column),
            Literal(self.rule.state.pending),
        )

    @property
    def entered_at(self) -> Composable:
        """When a row was entered; NULL where it has no time that a calendar of people knows.

        PostgreSQL's times reach from 4713 BC to infinity, and Python reads neither.
        """
        return SQL(
            "CASE WHEN {at} BETWEEN '0001-01-02' AND '9000-01-01' THEN {at}::timestamptz END"
        ).format(at=Identifier(self.rule.entered.at))

    def column(self, name: str, of: str = "i") -> Composable:
        """A column of the row ``i`` or of another alias."""
        return Identifier(of, name)

    def part(self, batch: str) -> str:
        """The name of a batch in evidence: ``customers/IN-000013``."""
        return f"{self.rule.id}/{batch}"


def rule_and_batch(part: str) -> tuple[str, str]:
    """Split the name of a batch in evidence."""
    rule, _, batch = part.partition("/")
    return rule, batch


def is_name(batch: str) -> bool:
    """Whether a batch's name may stand in evidence and in a task's address: plain, not long."""
    return len(batch) <= LONGEST_BATCH and _PLAIN.fullmatch(batch) is not None
