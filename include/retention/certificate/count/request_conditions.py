"""SQL conditions with which the independent count finds the records of erasure requests.

The conditions compare the columns of a primary key as values of their own data types. The execution
compares them as texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.request_records import Key, RequestRecords, SubjectKeys, digest_of
from include.policy.fragments import all_of, any_of, literal, pack_sql, quoted
from include.policy.retention import RetentionRule
from include.retention.postgres.relations import Relation, Relations

_FALSE = SQL("false")


@dataclass(frozen=True)
class RemainingOfSubject:
    """The numbers of remaining records of a data subject who requested erasure.

    Attributes:
        key: key of the data subject.
        records: number of records in record classes that are erased on request.
        unexplained: number of these records without a reason to remain. Reasons to remain are a
            legal hold, a law, a reference from another record, and that the record now belongs to
            another data subject.
        taken_over: number of these records that now belong to another data subject.
    """

    key: str
    records: int
    unexplained: int
    taken_over: int = 0


@dataclass(frozen=True)
class RequestConditions:
    """SQL conditions that match the records that runs found for erasure requests.

    A run stores the primary keys of these records in the state database before it erases records.
    They are called the *listed records* of an erasure request.

    Attributes:
        connection: connection to the mapped database, with an open transaction.
        relations: the mapped tables and their foreign keys.
        records: primary keys of the listed records.
    """

    connection: psycopg.Connection[Any]
    relations: Relations
    records: RequestRecords

    def condition(self, rule: RetentionRule, subjects: Collection[str]) -> Composable:
        """Return the SQL condition that a record is listed for an erasure request.

        The state database lists the records that runs found for erasure requests.

        Args:
            rule: record class of the record.
            subjects: keys of data subjects. Only the erasure requests of these data subjects count.
        """
        return self._among(rule, self.records.of(rule.record_class, subjects))

    def existing_records(self, rules: Sequence[RetentionRule]) -> set[tuple[str, Key]]:
        """Return the records listed for erasure requests that still exist in the mapped database.

        Args:
            rules: record classes to search.

        Returns:
            Record class and primary key of each record.
        """
        remaining: set[tuple[str, Key]] = set()
        for rule in rules:
            groups = self.records.of(rule.record_class)
            keys = sorted({key for group in groups for key in group.keys})
            if not keys:
                continue
            query = SQL(
                "SELECT k.number FROM {keys} WHERE EXISTS (SELECT FROM {table} AS t WHERE {same})"
            ).format(
                keys=self._listed(rule, keys),
                table=self._relation(rule).identifier,
                same=self._same_key(rule),
            )
            remaining |= {
                (rule.record_class, keys[number - 1])
                for (number,) in self.connection.execute(query, {})
            }
        return remaining

    @property
    def subjects(self) -> frozenset[str]:
        """The keys of data subjects with an erasure request for which a run has found records."""
        return self.records.subjects

    def taken_over(
        self, rule: RetentionRule, key: str, linked: Composable, named: Mapping[str, Composable]
    ) -> Composable:
        """Return the SQL condition that a listed record now belongs to another data subject.

        This is the case if the key expression with which a run found the record for the erasure
        request now returns the key of another data subject.

        Args:
            rule: record class of the record.
            key: key of the data subject who requested erasure.
            linked: SQL condition that the record names this data subject.
            named: key expression of the record class -> SQL condition that it returns the key of
                this data subject.
        """
        expressions = {digest_of(text): text for text in rule.keys.subject}
        own, groups = [], self.records.of(rule.record_class, {key})
        for group in groups:
            condition = self._among(rule, [group])
            if group.found_by in expressions:
                text = expressions[group.found_by]
                unlinked = SQL("(({})::text IS NULL)").format(pack_sql(text))
                condition = all_of([condition, any_of([unlinked, named[text]])])
            own.append(condition)
        if not groups:
            return _FALSE
        return SQL("NOT ({})").format(any_of([linked, *own]))

    def _among(self, rule: RetentionRule, groups: Sequence[SubjectKeys]) -> Composable:
        """Return the SQL condition that a record has one of several primary keys.

        Args:
            rule: record class of the record.
            groups: the primary keys. Each item contains the keys of one data subject's records that
                were found with one key expression.
        """
        keys = sorted({key for group in groups for key in group.keys})
        if not keys:
            return _FALSE
        columns = SQL(", ").join(quoted("t", column) for column in self._relation(rule).key)
        typed = SQL(", ").join(
            SQL("k.{}::{}").format(Identifier(f"k{at}"), SQL(kind))
            for at, kind in enumerate(self._key_types(rule))
        )
        return SQL("(({}) IN (SELECT {} FROM {}))").format(columns, typed, self._listed(rule, keys))

    def _relation(self, rule: RetentionRule) -> Relation:
        return self.relations.by_collection[rule.collection]

    def _listed(self, rule: RetentionRule, keys: Sequence[Key]) -> Composable:
        """Return a table ``k`` of primary keys, as an SQL item of a FROM clause.

        The table has a row for each key. Its columns ``k0``, ``k1`` and so on contain the columns
        of the key as texts. Its column ``number`` contains the position of the key in `keys`, from
        1.

        Args:
            rule: record class to which the primary keys belong.
            keys: the primary keys.
        """
        columns = [list(texts) for texts in zip(*keys, strict=True)]
        names = [Identifier(f"k{at}") for at in range(len(columns))]
        return SQL("unnest({}) WITH ORDINALITY AS k ({}, number)").format(
            SQL(", ").join(SQL("{}::text[]").format(literal(texts)) for texts in columns),
            SQL(", ").join(names),
        )

    def _same_key(self, rule: RetentionRule) -> Composable:
        """Return the SQL condition that the primary key of a record ``t`` equals the key ``k``.

        `_listed` returns the table ``k``.
        """
        relation = self._relation(rule)
        return all_of(
            [
                SQL("{} = k.{}::{}").format(quoted("t", column), Identifier(f"k{at}"), SQL(kind))
                for at, (column, kind) in enumerate(
                    zip(relation.key, self._key_types(rule), strict=True)
                )
            ]
        )

    def _key_types(self, rule: RetentionRule) -> list[str]:
        """Return the SQL type of each primary key column of the table of a record class."""
        relation = self._relation(rule)
        query = (
            "SELECT replace(format_type(a.atttypid, a.atttypmod), '%%', '%%%%') "
            "FROM unnest(%(columns)s::text[]) WITH ORDINALITY AS w (name, place) "
            "JOIN pg_attribute a ON a.attrelid = %(oid)s::oid AND a.attname = w.name "
            "ORDER BY w.place"
        )
        parameters = {"columns": list(relation.key), "oid": relation.oid}
        return [kind for (kind,) in self.connection.execute(query, parameters)]
