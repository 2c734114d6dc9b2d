"""The columns of foreign keys that are set to null when the referenced record is deleted.

`detach` names columns. Of a composite key only the named columns are set to null, so that a kept
invoice keeps its tenant. A key that cannot be detached in this way is refused when the plan is
made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable

from include.erasure.masks import shapes
from include.erasure.places import Place
from include.policy.fragments import both, quoted
from include.retention.planning.column_checks import failing_check
from include.retention.planning.graph import Graph, Reference
from include.retention.postgres.relations import Relation
from include.services.errors import UsageError

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
    """Properties of a foreign key, from the catalogue.

    Attributes:
        is_full: whether it is MATCH FULL: either all of its columns are null, or none.
        nulled_columns: columns of ``ON DELETE SET NULL (column)``; empty if the key lists none.
        generated: columns that PostgreSQL computes.
    """

    is_full: bool
    nulled_columns: Sequence[str]
    generated: Sequence[str]


def detached_columns(graph: Graph, collection: str, reference: Reference) -> tuple[str, ...]:
    """Return the columns of a foreign key that `detach` of a collection names."""
    named = {
        text for record_class in graph.classes[collection] for text in record_class.rule.detach
    }
    return tuple(
        column for column in reference.key.columns if f"{reference.child}.{column}" in named
    )


def to_null(columns: Sequence[str]) -> Composable:
    """Return the SET clause that detaches columns."""
    return SQL(", ").join(SQL("{} = NULL").format(quoted(column)) for column in columns)


def require_detachable(connection: psycopg.Connection[Any], graph: Graph) -> None:
    """Refuse a plan whose deletions would set columns to null that cannot be null.

    Args:
        connection: inside of the plan's view of the database.
        graph: the collections of the plan.

    Raises:
        UsageError: a column of `detach`, or of ON DELETE SET NULL, must not be null or is
            generated, null does not end the reference, or a CHECK constraint refuses the rows.
    """
    for collection in graph.emptied:
        for reference in graph.references(collection):
            child = graph.relations.by_collection.get(reference.child or "")
            if child is None or not reference.sets_null:
                continue
            facts = _facts(connection, reference)
            columns = detached_columns(graph, collection, reference)
            if not reference.by_us:
                if reference.key.on_delete != "set_null":
                    continue
                columns = tuple(facts.nulled_columns) or reference.key.columns
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
    """Return the reason why columns cannot be set to null; None if they can."""
    live = shapes(connection, Place(child.schema, child.name))
    if filled := [column for column in columns if column in live and live[column].filled]:
        return f"{', '.join(filled)} must not be null"
    if generated := sorted(set(columns) & set(facts.generated)):
        return f"{', '.join(generated)} is generated"
    if facts.is_full and set(columns) != set(reference.key.columns):
        return "the key is MATCH FULL, so all of its columns must be named"
    assigned: Mapping[str, Composable] = dict.fromkeys(columns, SQL("NULL"))
    refers = both([SQL("({} IS NOT NULL)").format(quoted("t", column)) for column in columns])
    if check := failing_check(connection, child, assigned, refers):
        return f"the CHECK constraint {check} refuses null"
    return None


def _refusal(
    collection: str, reference: Reference, columns: Sequence[str], reason: str
) -> UsageError:
    label, key = reference.key.label, reference.key
    if reference.by_us:
        return UsageError(
            f"{label}.{', '.join(columns)} cannot be set to null, as `detach` of {collection} in "
            f"retention.yaml requires: {reason}.",
            f"Correct `detach`; the columns of the key {key.name} are {', '.join(key.columns)}. "
            f"Without `detach`, a record of {label} keeps the record that it refers to.",
        )
    return UsageError(
        f"{label}.{', '.join(columns)} cannot be set to null, as ON DELETE SET NULL of {key.name} "
        f"does when a record of {collection} is deleted: {reason}. PostgreSQL would refuse the "
        "deletion.",
        "Name the column that may be null in `detach` (retention.yaml), or correct the key: ON "
        "DELETE SET NULL (column), PostgreSQL 15 or newer.",
    )
