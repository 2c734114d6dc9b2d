"""Records that runs found for requests, as conditions of the count afterwards.

Primary keys are compared as values of their types, not as texts as the execution compares them.
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
class Subject:
    """The remaining records of a data subject who requested erasure.

    Attributes:
        records: in classes that a request erases.
        unexplained: of these, records that no hold, law, reference or other data subject keeps.
        taken_over: of these, records that now belong to another data subject.
    """

    key: str
    records: int
    unexplained: int
    taken_over: int = 0


@dataclass(frozen=True)
class Remembered:
    """Finds the remembered records of requests.

    Attributes:
        connection: of the count afterwards, inside of a transaction.
        relations: the live tables.
        records: that runs found, by their keys.
    """

    connection: psycopg.Connection[Any]
    relations: Relations
    records: RequestRecords

    def condition(self, rule: RetentionRule, subjects: Collection[str]) -> Composable:
        """Return the condition that a run found the record for one of some data subjects."""
        return self._among(rule, self.records.of(rule.record_class, subjects))

    def still_there(self, rules: Sequence[RetentionRule]) -> set[tuple[str, Key]]:
        """Return which of the remembered records are still there: class and primary key."""
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
        """Keys of the data subjects of the records, as their requests are written."""
        return self.records.subjects

    def taken_over(
        self, rule: RetentionRule, key: str, linked: Composable, named: Mapping[str, Composable]
    ) -> Composable:
        """Return the condition that a remembered record belongs to another data subject now.

        Args:
            rule: the record class.
            key: of the data subject who asked.
            linked: the condition that the class's keys name this data subject.
            named: the condition that one expression names this data subject, by expression.
        """
        expressions = {digest_of(text): text for text in rule.keys.subject}
        ours, groups = [], self.records.of(rule.record_class, {key})
        for group in groups:
            condition = self._among(rule, [group])
            if group.found_by in expressions:
                text = expressions[group.found_by]
                unlinked = SQL("(({})::text IS NULL)").format(pack_sql(text))
                condition = all_of([condition, any_of([unlinked, named[text]])])
            ours.append(condition)
        if not groups:
            return _FALSE
        return SQL("NOT ({})").format(any_of([linked, *ours]))

    def _among(self, rule: RetentionRule, groups: Sequence[SubjectKeys]) -> Composable:
        """Return the condition that the record has one of the primary keys."""
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
        """Return primary keys as rows ``k`` of texts, numbered from 1."""
        columns = [list(texts) for texts in zip(*keys, strict=True)]
        names = [Identifier(f"k{at}") for at in range(len(columns))]
        return SQL("unnest({}) WITH ORDINALITY AS k ({}, number)").format(
            SQL(", ").join(SQL("{}::text[]").format(literal(texts)) for texts in columns),
            SQL(", ").join(names),
        )

    def _same_key(self, rule: RetentionRule) -> Composable:
        """Return the condition that the record ``t`` has the primary key ``k``."""
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
        """Return the types of the primary key's columns, as SQL."""
        relation = self._relation(rule)
        query = (
            "SELECT replace(format_type(a.atttypid, a.atttypmod), '%%', '%%%%') "
            "FROM unnest(%(columns)s::text[]) WITH ORDINALITY AS w (name, place) "
            "JOIN pg_attribute a ON a.attrelid = %(oid)s::oid AND a.attname = w.name "
            "ORDER BY w.place"
        )
        parameters = {"columns": list(relation.key), "oid": relation.oid}
        return [kind for (kind,) in self.connection.execute(query, parameters)]
