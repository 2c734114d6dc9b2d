"""Find the triggers, rules and publications that act on the changes of a disposition plan.

The plan lists them. In two cases, no plan is made: a rule would replace a statement of the
execution by another statement, or a publication could not identify a deleted row for its
subscribers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.retention.planning.graph import Graph
from include.retention.planning.plan import Event, Reaction
from include.services.database import scalar
from include.services.errors import UsageError

_PARTS = """
WITH RECURSIVE parts AS (
    SELECT oid AS root, oid FROM unnest(%(tables)s::oid[]) AS t (oid)
    UNION SELECT p.root, i.inhrelid FROM parts p JOIN pg_inherits i ON i.inhparent = p.oid
), named AS (
    SELECT p.root, p.oid, n.nspname, c.relname, c.relkind, c.relreplident
    FROM parts p JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
)
"""
# Bits of tgtype: 8 DELETE, 16 UPDATE. Partitions have clones of their parents' triggers.
_TRIGGERS = f"""{_PARTS}
SELECT p.root::bigint, t.tgname::text AS name,
       format('%%I.%%I', n.nspname, f.proname) AS function,
       bool_or(t.tgtype & 8 > 0) AS on_delete, bool_or(t.tgtype & 16 > 0) AS on_update
FROM named p JOIN pg_trigger t ON t.tgrelid = p.oid JOIN pg_proc f ON f.oid = t.tgfoid
JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""  # noqa: S608 - fixed text
_RULES = f"""{_PARTS}
SELECT p.root::bigint, r.rulename::text AS name, bool_or(r.is_instead) AS is_instead,
       bool_or(r.ev_type = '4') AS on_delete, bool_or(r.ev_type = '2') AS on_update
FROM named p JOIN pg_rewrite r ON r.ev_class = p.oid
WHERE r.ev_enabled IN ('O', 'A') GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - fixed text
_PUBLICATIONS = f"""{_PARTS}
, published AS (
    SELECT p.root, p.oid, b.pubname, b.pubdelete, b.pubupdate FROM named p
    JOIN pg_publication_tables t ON (t.schemaname, t.tablename) = (p.nspname, p.relname)
    JOIN pg_publication b ON b.pubname = t.pubname
)
SELECT l.root::bigint, b.pubname::text AS name, bool_or(b.pubdelete) AS on_delete,
       bool_or(b.pubupdate) AS on_update,
       min(format('%%I.%%I', l.nspname, l.relname)) FILTER (WHERE NOT CASE l.relreplident
           WHEN 'f' THEN true
           WHEN 'd' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = l.oid
                                 AND i.indisprimary AND i.indimmediate AND i.indisvalid)
           WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = l.oid
                                 AND i.indisreplident AND i.indisvalid)
           ELSE false END) AS without_identity
FROM named l JOIN published b ON b.root = l.root AND b.oid IN (l.oid, l.root)
WHERE l.relkind = 'r' GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - fixed text


def read_reactions(connection: psycopg.Connection[Any], graph: Graph) -> tuple[Reaction, ...]:
    """Return the triggers, rules and publications that act on the changes of a plan.

    Args:
        connection: connection with the open snapshot of the plan.
        graph: the collections of the plan and their foreign keys.

    Raises:
        UsageError: a rule would replace a statement of the execution, a published table has no
            replica identity, or the session does not fire the triggers that enforce foreign keys.
    """
    _require_ordinary_triggers(connection)
    events = _changes_by_collection(graph)
    oids = {graph.relations.by_collection[name].oid: name for name in events}
    tables = {"tables": sorted(oids)}
    reactions: list[Reaction] = []
    with connection.cursor(row_factory=dict_row) as cursor:
        for kind, query in (
            ("trigger", _TRIGGERS),
            ("rule", _RULES),
            ("publication", _PUBLICATIONS),
        ):
            for row in cursor.execute(query.encode(), tables).fetchall():
                name = oids[row["root"]]
                relation = graph.relations.by_collection[name]
                reacts = tuple(
                    event
                    for event in events[name]
                    if row["on_delete" if event == "DELETE" else "on_update"]
                )
                if not reacts:
                    continue
                reaction = Reaction(
                    collection=name,
                    table=f"{relation.schema}.{relation.name}",
                    kind=kind,
                    name=row["name"],
                    events=reacts,
                    function=row.get("function"),
                )
                _require_passable(reaction, row)
                reactions.append(reaction)
    return tuple(reactions)


def _changes_by_collection(graph: Graph) -> dict[str, list[Event]]:
    """Return the types of statements that a plan may execute on each collection."""
    by_collection: dict[str, set[Event]] = {}
    for name, classes in graph.classes.items():
        if any(record_class.rule.deletes for record_class in classes):
            by_collection.setdefault(name, set()).add("DELETE")
            for reference in graph.references(name):
                if reference.sets_null and reference.child is not None:
                    by_collection.setdefault(reference.child, set()).add("UPDATE")
        if any(record_class.rule.action == "mask" for record_class in classes):
            by_collection.setdefault(name, set()).add("UPDATE")
    return {name: sorted(events) for name, events in sorted(by_collection.items())}


def _require_ordinary_triggers(connection: psycopg.Connection[Any]) -> None:
    if scalar(connection, "SELECT current_setting('session_replication_role')") == "replica":
        user = connection.info.user
        raise UsageError(
            f"Sessions of {user} do not fire triggers, including those of foreign keys "
            "(session_replication_role is replica), so records would refer to deleted records.",
            f"As a superuser, run ALTER ROLE {user} RESET session_replication_role; check also the "
            "settings of the database.",
        )


def _require_passable(reaction: Reaction, row: Mapping[str, Any]) -> None:
    if row.get("is_instead"):
        raise UsageError(
            f"The rule {reaction.name} of {reaction.table} replaces {' and '.join(reaction.events)}"
            " by another statement (DO INSTEAD), which may delete or mask other records.",
            "Drop the rule, replace it by a trigger, or remove the record classes of "
            f"{reaction.collection} from retention.yaml.",
        )
    if table := row.get("without_identity"):
        raise UsageError(
            f"The publication {reaction.name} publishes {' and '.join(reaction.events)} of {table},"
            " which has no replica identity: PostgreSQL refuses to delete or change its rows.",
            f"Run ALTER TABLE {table} REPLICA IDENTITY DEFAULT (the table needs a primary key), or "
            "remove the table from the publication.",
        )
