"""An incoming table under its rule: the names that every statement about it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

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

    @cached_property
    def _names(self) -> Mapping[str, Composable]:
        rule = self.rule
        return {
            "table": self.table,
            "batch": Identifier(rule.batch),
            "entered_by": Identifier(rule.entered.by),
            "reviewed_by": Identifier(rule.reviewed.by),
            "reviewed_at": Identifier(rule.reviewed.at),
            "back_reference": Identifier(rule.back_reference.column),
            "state": Identifier(rule.state.column),
            "pending": Literal(rule.state.pending),
            "promoted": Literal(rule.state.promoted),
            "rejected": Literal(rule.state.rejected),
            "set_aside": Literal(rule.state.set_aside),
            "staff": self.staff,
            "account": Identifier(rule.people.account),
            "person": Identifier(rule.people.key),
        }

    def sql(self, template: LiteralString, **parts: Composable) -> Composed:
        """Return SQL about the table.

        Args:
            template: may name ``{table}`` and its columns ``{batch}``, ``{state}``,
                ``{entered_by}``, ``{reviewed_by}``, ``{reviewed_at}`` and ``{back_reference}``;
                the states ``{pending}``, ``{promoted}``, ``{rejected}`` and ``{set_aside}``;
                ``{staff}`` and its columns ``{person}`` and ``{account}``.
            parts: further names of the template.
        """
        return SQL(template).format(**{**self._names, **parts})

    def pending(self, batch: str) -> Composable:
        """The condition of a batch's rows that nobody has decided on, without parameters.

        Literals have no type of their own, so PostgreSQL reads them as the column's and its index
        serves.
        """
        return self.sql("{batch} = {name} AND {state} = {pending}", name=Literal(batch))

    @property
    def is_listed(self) -> Composable:
        """The condition of a row ``i`` whose key is one of the parameters `listed_keys`."""
        arrays = [SQL(f"%(k{place})s::text[]") for place in range(len(self.key))]
        names = [Identifier(f"k{place}") for place in range(len(self.key))]
        same = [
            SQL("b.{} = {}::text").format(name, self.column(column))
            for name, column in zip(names, self.key, strict=True)
        ]
        return SQL("EXISTS (SELECT FROM unnest({}) AS b({}) WHERE {})").format(
            SQL(", ").join(arrays), SQL(", ").join(names), SQL(" AND ").join(same)
        )

    def listed_keys(self, keys: Iterable[Sequence[Any]]) -> dict[str, list[str]]:
        """Return keys as the parameters of `is_listed`."""
        listed = list(keys)
        return {f"k{place}": [str(key[place]) for key in listed] for place in range(len(self.key))}

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
