"""The incoming table that a rule of intake.yaml is about, and SQL for its names and rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.messages import Message, _
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.intake import IntakeRule
from include.services.errors import UsageError

CLAUSE = "5.2"
MAX_BATCH_NAME_LENGTH = 100  # characters of a batch's name
_PLAIN = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True)
class Incoming:
    """An incoming table and the rule of intake.yaml that governs its review.

    Attributes:
        rule: rule of intake.yaml.
        database: data map of the database that contains the table.
    """

    rule: IntakeRule
    database: MappedDatabase

    @property
    def collection(self) -> MappedCollection:
        """Return the description of the incoming table in the data map."""
        return self.database.collections[self.rule.collection]

    @property
    def key(self) -> tuple[str, ...]:
        """Return the primary key columns of the incoming table.

        Raises:
            UsageError: the data map defines no primary key for the table.
        """
        columns = self.collection.primary_key
        if not columns:
            raise UsageError(
                f"The data map names no primary key of {self.rule.collection}.",
                "Add fides_meta: {primary_key: true} to the columns of the key.",
            )
        return columns

    @property
    def table(self) -> Composable:
        """Return the SQL name of the incoming table, with its schema."""
        return self.table_of(self.rule.collection)

    @property
    def staff(self) -> Composable:
        """Return the SQL name of the staff table, with its schema."""
        return self.table_of(self.rule.people.collection)

    def table_of(self, collection: str) -> Composable:
        """Return the SQL name of a collection's table, with its schema.

        Args:
            collection: name of a collection in the same database as the incoming table.
        """
        collection_mapped = self.database.collections[collection]
        return Identifier(collection_mapped.schema_name, collection_mapped.table)

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
            "set_aside": Literal(rule.state.quarantined_value),
            "staff": self.staff,
            "account": Identifier(rule.people.account),
            "person": Identifier(rule.people.key),
        }

    def sql(self, template: LiteralString, **parts: Composable) -> Composed:
        """Return SQL in which placeholders are replaced by the names of the incoming table.

        Args:
            template: SQL in which these placeholders may occur: ``{table}`` and its columns
                ``{batch}``, ``{state}``, ``{entered_by}``, ``{reviewed_by}``, ``{reviewed_at}`` and
                ``{back_reference}``; the values of the state column ``{pending}``, ``{promoted}``,
                ``{rejected}`` and ``{set_aside}``; ``{staff}`` for the staff table and its columns
                ``{person}`` and ``{account}``.
            parts: SQL for other placeholders in the template, by name.
        """
        return SQL(template).format(**{**self._names, **parts})

    def pending(self, batch: str) -> Composable:
        """Return the SQL condition that selects the rows of a batch that wait for review.

        The condition contains literals instead of query parameters. PostgreSQL gives a literal the
        type of the column with which it is compared, so that it can use an index on the column.
        """
        return self.sql("{batch} = {name} AND {state} = {pending}", name=Literal(batch))

    @property
    def key_is_listed(self) -> Composable:
        """Return the SQL condition that the primary key of row ``i`` is one of the listed keys.

        The listed keys are query parameters of the condition. `listed_keys` returns these
        parameters.
        """
        arrays = [SQL(f"%(k{index})s::text[]") for index in range(len(self.key))]
        names = [Identifier(f"k{index}") for index in range(len(self.key))]
        equal = [
            SQL("b.{} = {}::text").format(name, self.column(column))
            for name, column in zip(names, self.key, strict=True)
        ]
        return SQL("EXISTS (SELECT FROM unnest({}) AS b({}) WHERE {})").format(
            SQL(", ").join(arrays), SQL(", ").join(names), SQL(" AND ").join(equal)
        )

    def listed_keys(self, keys: Iterable[Sequence[Any]]) -> dict[str, list[str]]:
        """Return primary keys of rows as query parameters for the condition `key_is_listed`.

        Args:
            keys: for each row, the values of the primary key columns.
        """
        key_list = list(keys)
        return {
            f"k{index}": [str(key[index]) for key in key_list] for index in range(len(self.key))
        }

    @property
    def entered_at(self) -> Composable:
        """Return the SQL expression of the time at which a row was entered.

        The expression is NULL for a time before the year 1 or after the year 9000. Python cannot
        represent all times of PostgreSQL, which reach from 4713 BC to infinity.
        """
        return SQL(
            "CASE WHEN {at} BETWEEN '0001-01-02' AND '9000-01-01' THEN {at}::timestamptz END"
        ).format(at=Identifier(self.rule.entered.at))

    def column(self, name: str, alias: str = "i") -> Composable:
        """Return the SQL name of a column, such as ``i."name"``.

        Args:
            name: name of the column.
            alias: alias of the table in the query.
        """
        return Identifier(alias, name)

    def batch_label(self, batch: str) -> str:
        """Return the label of a batch for step records and findings.

        The label is ``rule/batch``, such as ``customers/IN-000013``. It consists of the id of the
        rule of intake.yaml and the name of the batch.
        """
        return f"{self.rule.id}/{batch}"

    def batch_title(self, batch: str) -> Message:
        """Return the display name of a batch, such as "Batch IN-000013 (Incoming records)".

        Args:
            batch: name of the batch.
        """
        return _("Batch {batch} ({collection})", batch=batch, collection=self.collection.title)


def split_part(part: str) -> tuple[str, str]:
    """Split the label of a batch into the id of the intake rule and the name of the batch.

    Args:
        part: result of `Incoming.batch_label`.
    """
    rule, _, batch = part.partition("/")
    return rule, batch


def is_batch_name(batch: str) -> bool:
    """Return whether a batch name is short enough and has only characters that task URLs allow."""
    return len(batch) <= MAX_BATCH_NAME_LENGTH and _PLAIN.fullmatch(batch) is not None
