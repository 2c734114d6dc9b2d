"""Check before an execution that the columns to change accept masked values and nulls.

Without these checks, a column, constraint or unique index that refuses a masked value would stop
the execution in the middle. The checks compute masked values of some records and write nothing. A
constraint that refuses only some records does not prevent the plan: the execution reports these
records (`retention.refused`) and masks the others.

The key `detach` of retention.yaml lists the columns of foreign keys that are set to null when the
referenced record is deleted. It may list only some columns of a composite foreign key. For example,
the tenant of an invoice can then stay when its customer is deleted. If a listed column does not
accept null, no plan is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable

from include.erasure.masks import masked_value, read_column_shapes
from include.erasure.tables import TableName
from include.policy.fragments import all_of, any_of, escape_percent, pack_sql, quoted
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import Graph, Reference
from include.retention.postgres.relations import Relation
from include.services.database import scalar
from include.services.errors import UsageError

TRIED_RECORDS = 200  # records to try against each check
_CHECKS = """
SELECT k.conname::text, pg_get_expr(k.conbin, k.conrelid),
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY a.attnum),
       array(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY a.attnum)
FROM pg_constraint k WHERE k.contype = 'c' AND k.conrelid = %s AND NOT 0 = ANY (k.conkey)
ORDER BY k.conname
"""


def failing_check(
    connection: psycopg.Connection[Any],
    relation: Relation,
    assigned: Mapping[str, Composable],
    which: Composable,
) -> str | None:
    """Return the name of a CHECK constraint that refuses the new values of all tried records.

    At most `TRIED_RECORDS` records are tried. Return None if there is no such constraint. A
    constraint that refuses only some of the tried records is not returned, since the execution
    reports these records. A constraint over columns that the login may not read is not tried.

    Args:
        connection: connection with the open snapshot of the plan.
        relation: the table.
        assigned: column -> SQL expression for its new value, over the record ``t``.
        which: SQL condition that selects the records to try; it refers to the table as ``t``.
    """
    for name, expression, columns, types in connection.execute(_CHECKS, [relation.oid]).fetchall():
        if not set(columns) & set(assigned):
            continue
        query = SQL(
            "SELECT count(*), count(*) FILTER (WHERE ({check}) IS NOT FALSE) FROM "
            "(SELECT {columns} FROM {table} AS t WHERE {which} LIMIT {tried}) AS t"
        ).format(
            check=pack_sql(expression),
            columns=_columns(columns, types, assigned),
            table=relation.identifier,
            which=which,
            tried=TRIED_RECORDS,
        )
        try:
            with connection.transaction():
                row = connection.execute(query, {}).fetchone()
        except errors.InsufficientPrivilege:
            continue
        except (psycopg.DataError, psycopg.IntegrityError):  # the column's type or domain refuses
            return str(name)
        assert row is not None
        if row[0] and not row[1]:
            return str(name)
    return None


def _columns(
    columns: Sequence[str], types: Sequence[str], assigned: Mapping[str, Composable]
) -> Composable:
    return SQL(", ").join(
        SQL("({})::{} AS {}").format(
            assigned[column] if column in assigned else quoted("t", column),
            pack_sql(kind),
            quoted(column),
        )
        for column, kind in zip(columns, types, strict=True)
    )


SINGLE_RECORDS = 20  # records to try one by one if some are refused
_COLUMNS = """
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       y.typcategory AS category, a.attgenerated <> '' AS is_generated,
       a.attidentity = 'a' AS is_identity,
       (SELECT k.conname::text FROM pg_constraint k WHERE k.contype = 'f'
        AND k.conrelid = a.attrelid AND a.attnum = ANY (k.conkey) LIMIT 1) AS refers_by,
       (SELECT k.conname::text FROM pg_constraint k WHERE k.contype = 'f'
        AND k.confrelid = a.attrelid AND a.attnum = ANY (k.confkey) LIMIT 1) AS referred_by
FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
WHERE a.attrelid = %s AND a.attname = ANY (%s)
"""
_UNIQUE = """
SELECT c.relname::text AS name, used.columns, used.types,
       array(SELECT pg_get_indexdef(i.indexrelid, place, true)
             FROM generate_series(1, i.indnkeyatts) AS place) AS parts,
       to_jsonb(i) ->> 'indnullsnotdistinct' = 'true' AS nulls_repeat,
       coalesce(pg_get_expr(i.indpred, i.indrelid), 'true') AS predicate
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY a.attnum) AS columns,
           array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types
    FROM pg_attribute a WHERE a.attrelid = i.indrelid AND (a.attnum = ANY (i.indkey)
        OR EXISTS (SELECT FROM pg_depend d WHERE d.objid = i.indexrelid
                   AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                   AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))
) AS used
WHERE i.indrelid = %s AND i.indisunique AND used.columns && %s::text[]
ORDER BY 1
"""


def require_masks_fit(connection: psycopg.Connection[Any], graph: Graph) -> None:
    """Check that the tables accept the masked values of all record classes.

    Args:
        connection: connection with the open snapshot of the plan.
        graph: the record classes of the plan.

    Raises:
        UsageError: a table does not accept a masked value. The message names the record class, the
            column and the reason.
    """
    for record_class in graph.masking:
        _MaskCheck(connection, record_class).require()


class _MaskCheck:
    def __init__(self, connection: psycopg.Connection[Any], record_class: RecordClass) -> None:
        self.connection = connection
        self.record_class = record_class
        self.relation = record_class.relation
        self.kinds = record_class.mask.columns

    def require(self) -> None:
        names = [*self.kinds, *filter(None, [self.record_class.mask.stamp])]
        with self.connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_COLUMNS, [self.relation.oid, names]).fetchall()
        columns = {row["name"]: row for row in rows}
        for name in names:
            if name in columns:
                self._require_writable(name, columns[name])
        assigned = {name: self._assigned(name) for name in self.kinds if name in columns}
        for name, value in assigned.items():
            self._require_type(name, columns[name]["type"], value)
        if check := failing_check(self.connection, self.relation, assigned, self._filled()):
            raise self._refusal(
                ", ".join(assigned), f"the CHECK constraint {check} refuses the masked record"
            )
        for name, clash in self._clashes(assigned):
            raise self._refusal(name, f"masked values repeat in the unique index {clash}")

    def _require_writable(self, name: str, column: Mapping[str, Any]) -> None:
        reason = None
        erased = self.kinds.get(name) == "erase" and not self.record_class.shapes[name].is_not_null
        if column["is_generated"] or column["is_identity"]:
            reason = "PostgreSQL generates its values"
        elif column["referred_by"]:
            reason = f"the foreign key {column['referred_by']} refers to it"
        elif column["refers_by"] and name in self.kinds and not erased:
            reason = f"the foreign key {column['refers_by']} requires that its value exists"
        elif name == self.record_class.mask.stamp and column["category"] != "D":
            reason = "its type cannot hold the moment of the stamp"
        if reason is not None:
            raise self._refusal(name, reason)

    def _assigned(self, name: str) -> Composable:
        """Return an SQL expression for the masked value of a column."""
        try:
            value = masked_value(name, self.record_class.shapes[name], self.kinds[name])
        except UsageError as error:
            raise UsageError(
                f"The class {self.record_class.name} cannot be masked. {error.message}",
                error.action,
            ) from None
        return escape_percent(value)

    def _require_type(self, name: str, kind: str, assigned: Composable) -> None:
        """Check that masked values can be cast to the type of the column, for example to a domain.

        Args:
            name: name of the column.
            kind: name of the data type of the column in SQL.
            assigned: SQL expression for the masked value.

        Raises:
            UsageError: the data type refuses the masked values of all tried records.
        """
        if self._casts(name, kind, assigned, SQL("LIMIT {}").format(TRIED_RECORDS)) is not False:
            return
        for offset in range(SINGLE_RECORDS):
            single = SQL("OFFSET {} LIMIT 1").format(offset)
            if (fits := self._casts(name, kind, assigned, single)) is True:
                return
            if fits is None:
                break
        raise self._refusal(name, f"its type {kind} refuses the masked value")

    def _casts(self, name: str, kind: str, assigned: Composable, limit: Composable) -> bool | None:
        """Return whether the masked values of all tried records can be cast to the column's type.

        Return None if the table has no record to try.

        Args:
            name: name of the column.
            kind: name of the data type of the column in SQL.
            assigned: SQL expression for the masked value.
            limit: LIMIT or OFFSET clause that selects the records to try.
        """
        query = SQL(
            "SELECT count(v::text), count(*) FROM (SELECT ({value})::{kind} AS v FROM {table} AS t "
            "WHERE {name} IS NOT NULL AND {belongs} {limit}) AS s"
        ).format(
            value=assigned,
            kind=pack_sql(kind),
            table=self.relation.identifier,
            name=quoted("t", name),
            belongs=self.record_class.belongs,
            limit=escape_percent(limit),
        )
        try:
            with self.connection.transaction():
                row = self.connection.execute(query, {}).fetchone()
        except (psycopg.DataError, psycopg.IntegrityError):
            return False
        return None if row is None or not row[1] else True

    def _clashes(self, assigned: Mapping[str, Composable]) -> Iterator[tuple[str, str]]:
        """Find unique indexes that would contain the same masked value for several of the tried
        records.

        At most `TRIED_RECORDS` records are tried.

        Args:
            assigned: column -> SQL expression for its masked value.

        Yields:
            For each such index: its masked columns, separated by commas, and its name.
        """
        with self.connection.cursor(row_factory=dict_row) as cursor:
            indexes = cursor.execute(_UNIQUE, [self.relation.oid, list(assigned)]).fetchall()
        for index in indexes:
            parts = [SQL("({})").format(pack_sql(part)) for part in index["parts"]]
            filled = [SQL("({})").format(pack_sql(index["predicate"]))]
            if not index["nulls_repeat"]:
                filled += [SQL("{} IS NOT NULL").format(part) for part in parts]
            query = SQL(
                "SELECT count(*) > count(DISTINCT ROW({parts})) FROM (SELECT {columns} "
                "FROM {table} AS t WHERE {which} LIMIT {tried}) AS t WHERE {filled}"
            ).format(
                parts=SQL(", ").join(parts),
                columns=_columns(index["columns"], index["types"], assigned),
                table=self.relation.identifier,
                which=self._filled(),
                tried=TRIED_RECORDS,
                filled=all_of(filled),
            )
            try:
                with self.connection.transaction():
                    repeats = scalar(self.connection, query, {})
            except errors.InsufficientPrivilege:
                continue
            if repeats:
                yield (
                    ", ".join(column for column in index["columns"] if column in assigned),
                    index["name"],
                )

    def _filled(self) -> Composable:
        """Return the SQL condition that a record is in the record class and has a value to mask.

        The record has a value to mask if at least one masked column is not null.
        """
        filled = [SQL("({} IS NOT NULL)").format(quoted("t", column)) for column in self.kinds]
        return all_of([self.record_class.belongs, any_of(filled)])

    def _refusal(self, columns: str, reason: str) -> UsageError:
        return UsageError(
            f"The class {self.record_class.name} cannot mask {self.relation.schema}."
            f"{self.relation.name} ({columns}): {reason}.",
            "Nothing was erased. Use another mask for the column, remove the column from `mask` in "
            "retention.yaml, or change the table.",
        )


_KEY = """
SELECT k.confmatchtype = 'f' AS is_full,
       array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid
             AND to_jsonb(k) -> 'confdelsetcols' @> to_jsonb(a.attnum)) AS nulled_columns,
       array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid
             AND a.attgenerated <> '' AND a.attnum = ANY (k.conkey)) AS generated
FROM pg_constraint k WHERE k.conrelid = %s AND k.conname = %s
"""


@dataclass(frozen=True)
class _KeyFacts:
    """Properties of a foreign key in PostgreSQL's system catalogue.

    Attributes:
        is_full: whether the foreign key is MATCH FULL, which requires that either all or none of
            its columns are null.
        nulled_columns: columns that ``ON DELETE SET NULL (column)`` lists; empty without such a
            list.
        generated: columns of the foreign key whose values PostgreSQL generates.
    """

    is_full: bool
    nulled_columns: Sequence[str]
    generated: Sequence[str]


def set_to_null(columns: Sequence[str]) -> Composable:
    """Return the assignments of an SQL UPDATE that set columns to null."""
    return SQL(", ").join(SQL("{} = NULL").format(quoted(column)) for column in columns)


def require_detachable(connection: psycopg.Connection[Any], graph: Graph) -> None:
    """Check that columns accept null if a deletion sets them to null.

    A deletion sets two kinds of columns to null: those that `detach` in retention.yaml lists, and
    those of foreign keys with ON DELETE SET NULL.

    Args:
        connection: connection with the open snapshot of the plan.
        graph: the collections of the plan and their foreign keys.

    Raises:
        UsageError: one of these columns is NOT NULL or generated, a CHECK constraint refuses null
            in it, or only some columns of a MATCH FULL foreign key would become null.
    """
    for collection in graph.deleting_collections:
        for reference in graph.references(collection):
            child = graph.relations.by_collection.get(reference.child or "")
            if child is None or not reference.sets_null:
                continue
            facts = _facts(connection, reference)
            columns: Sequence[str] = reference.detached
            if not columns:
                if reference.key.on_delete != "set_null":
                    continue
                columns = facts.nulled_columns or reference.key.columns
            reason = _obstacle(connection, child, reference, facts, columns)
            if reason is not None:
                raise _refusal(collection, reference, columns, reason)


def _facts(connection: psycopg.Connection[Any], reference: Reference) -> _KeyFacts:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_KEY, [reference.key.child, reference.key.name]).fetchone()
    assert row is not None
    return _KeyFacts(**row)


def _obstacle(
    connection: psycopg.Connection[Any],
    child: Relation,
    reference: Reference,
    facts: _KeyFacts,
    columns: Sequence[str],
) -> str | None:
    """Return the reason why columns of a foreign key cannot be set to null, or None if they can.

    Args:
        connection: connection with the open snapshot of the plan.
        child: table that has the foreign key.
        reference: the foreign key.
        facts: properties of the foreign key.
        columns: columns to set to null.
    """
    shapes = read_column_shapes(connection, TableName(child.schema, child.name))
    if not_null := [name for name in columns if name in shapes and shapes[name].is_not_null]:
        return f"{', '.join(not_null)} must not be null"
    if generated := sorted(set(columns) & set(facts.generated)):
        return f"{', '.join(generated)} is generated"
    if facts.is_full and set(columns) != set(reference.key.columns):
        return "the key is MATCH FULL, so all of its columns must be named"
    assigned: Mapping[str, Composable] = dict.fromkeys(columns, SQL("NULL"))
    refers = all_of([SQL("({} IS NOT NULL)").format(quoted("t", column)) for column in columns])
    if check := failing_check(connection, child, assigned, refers):
        return f"the CHECK constraint {check} refuses null"
    return None


def _refusal(
    collection: str, reference: Reference, columns: Sequence[str], reason: str
) -> UsageError:
    label, key = reference.key.label, reference.key
    if reference.detached:
        return UsageError(
            f"{label}.{', '.join(columns)} cannot be set to null, as `detach` of {collection} in "
            f"retention.yaml requires: {reason}.",
            f"Correct `detach`; the columns of the key {key.name} are {', '.join(key.columns)}. "
            f"Without `detach`, the records that {label} refers to are not deleted.",
        )
    return UsageError(
        f"{label}.{', '.join(columns)} cannot be set to null, as ON DELETE SET NULL of {key.name} "
        f"does when a record of {collection} is deleted: {reason}. PostgreSQL would refuse the "
        "deletion.",
        "Name the column that may be null in `detach` (retention.yaml), or correct the key: ON "
        "DELETE SET NULL (column), PostgreSQL 15 or newer.",
    )
