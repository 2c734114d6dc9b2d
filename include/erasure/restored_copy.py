"""Suspend triggers of a restored copy during the replay; renew its statistics and views after it.

An application's triggers and rules would copy old values into history tables, keep records that
must be erased, or refuse the change. Foreign keys stay in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from typing import Any, LiteralString

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier

from include.erasure.matching import copy_failures
from include.erasure.places import Place
from include.services.database import scalar
from include.services.errors import UsageError

FIRST_OWN_OBJECT = 16384  # lower numbers are PostgreSQL's own objects (FirstNormalObjectId)
# Tables of the database's users. Those of an extension that the role does not own stay as they are.
_TABLES = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (pg_has_role(c.relowner, 'USAGE') OR NOT EXISTS (
       SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
       AND d.deptype = 'e'))
"""
# PostgreSQL's own functions enforce foreign keys and keep text search columns of the same record.
# The extension lo has one that deletes the large object of a deleted record.
_TRIGGERS = f"""
SELECT named.nspname::text, named.relname::text, t.tgname::text, t.tgenabled::text
FROM (SELECT c.oid, n.nspname, c.relname {_TABLES}) named
JOIN pg_trigger t ON t.tgrelid = named.oid
WHERE t.tgenabled <> 'D' AND t.tgfoid >= {FIRST_OWN_OBJECT} AND NOT EXISTS (
    SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'lo'
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid AND d.deptype = 'e'
    AND d.refclassid = 'pg_extension'::regclass)
ORDER BY 1, 2, 3
"""  # noqa: S608 - fixed text
_RULES = f"""
SELECT named.nspname::text, named.relname::text, r.rulename::text, r.ev_enabled::text
FROM (SELECT c.oid, n.nspname, c.relname {_TABLES}) named
JOIN pg_rewrite r ON r.ev_class = named.oid
WHERE r.ev_enabled <> 'D' AND r.ev_type <> '1'
ORDER BY 1, 2, 3
"""  # noqa: S608 - fixed text
_FORCED = f"""
SELECT n.nspname::text, c.relname::text {_TABLES}
AND c.relforcerowsecurity AND row_security_active(c.oid)
ORDER BY 1, 2
"""
_EVENTS = """
SELECT evtname::text, evtenabled::text FROM pg_event_trigger
WHERE evtenabled <> 'D' AND pg_has_role(evtowner, 'USAGE') ORDER BY 1
"""
_ENABLE = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


@contextmanager
def suspended(copy: psycopg.Connection[Any]) -> Iterator[None]:
    """Suspend triggers, rules and forced row security of a copy until the block ends.

    Each gets its earlier state back. The changes belong to the open transaction, so after an error,
    or when the process is killed, the copy has its triggers as before.

    Args:
        copy: the restored database, in a transaction; deferred foreign keys must have been checked
            when the block ends.

    Raises:
        UsageError: the role does not own a table that has triggers or rules.
        ServiceError: the copy refuses.
    """
    with _trigger_failures(copy):
        resume = _suspend(copy)
    yield
    with _trigger_failures(copy):
        for statement in resume:
            copy.execute(statement)


@contextmanager
def event_triggers_suspended(copy: psycopg.Connection[Any]) -> Iterator[None]:
    """Suspend the event triggers that the role owns until the block ends, in its transaction.

    Raises:
        psycopg.Error: the copy refuses.
    """
    resume = _suspend_event_triggers(copy)
    yield
    for statement in resume:
        copy.execute(statement)


def _suspend_event_triggers(copy: psycopg.Connection[Any]) -> list[Composed]:
    resume: list[Composed] = []
    for name, state in copy.execute(_EVENTS).fetchall():
        change = SQL("ALTER EVENT TRIGGER {} {}")
        copy.execute(change.format(Identifier(name), SQL("DISABLE")))
        resume.append(change.format(Identifier(name), SQL(_ENABLE[state])))
    return resume


def _suspend(copy: psycopg.Connection[Any]) -> list[Composed]:
    """Suspend triggers, rules and row security; return the statements that resume them."""
    # The role replica checks no foreign key.
    if scalar(copy, "SELECT current_setting('session_replication_role')") == "replica":
        copy.execute("SET LOCAL session_replication_role = origin")
    # Suspended first and resumed last, since the other statements would fire them.
    resume = _suspend_event_triggers(copy)
    for kind, query in (("TRIGGER", _TRIGGERS), ("RULE", _RULES)):
        for schema, table, name, state in copy.execute(query).fetchall():
            change = SQL("ALTER TABLE ONLY {} {} {} {}")
            parts = (SQL(kind), Identifier(name))
            copy.execute(change.format(Identifier(schema, table), SQL("DISABLE"), *parts))
            resume.append(change.format(Identifier(schema, table), SQL(_ENABLE[state]), *parts))
    for schema, table in copy.execute(_FORCED).fetchall():
        change = SQL("ALTER TABLE ONLY {} {} ROW LEVEL SECURITY")
        copy.execute(change.format(Identifier(schema, table), SQL("NO FORCE")))
        resume.append(change.format(Identifier(schema, table), SQL("FORCE")))
    return resume[::-1]


@contextmanager
def _trigger_failures(copy: psycopg.Connection[Any]) -> Iterator[None]:
    with copy_failures(copy, "The triggers of the copy cannot be disabled"):
        try:
            yield
        except errors.InsufficientPrivilege:
            if not copy.broken:
                copy.rollback()
            raise UsageError(
                "The role may not disable the triggers of the copy, so erased records cannot be "
                "erased again.",
                "Restore with the role that owns the tables, or with a superuser.",
            ) from None


# What the transaction changed, cascades included; everything where the server does not count. The
# collections' tables too: the load may have brought statistics from before an earlier erasure.
_RELATIONS = """
WITH RECURSIVE changed (oid) AS (
    SELECT c.oid FROM pg_class c LEFT JOIN pg_stat_xact_all_tables s ON s.relid = c.oid
    WHERE c.relkind = 'm' AND c.relispopulated OR s.n_tup_upd + s.n_tup_del > 0
    OR NOT current_setting('track_counts')::bool
    OR c.oid IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
    UNION SELECT other.oid FROM changed CROSS JOIN LATERAL (
        SELECT relid::oid FROM pg_partition_tree(changed.oid)
        UNION ALL SELECT inhparent FROM pg_inherits WHERE inhrelid = changed.oid) AS other (oid)
)
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind = 'm', c.relispartition
FROM changed JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3
"""
# ANALYZE leaves the statistics of a table without rows, and those of a column without a target.
_CLEAR = """
DELETE FROM pg_statistic WHERE starelid = ANY(%(oids)s) OR starelid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s))
"""
_CLEAR_EXTENDED = """
DELETE FROM pg_statistic_ext_data WHERE stxoid IN (
    SELECT oid FROM pg_statistic_ext WHERE stxrelid = ANY(%(oids)s))
"""
# For other roles than superusers, since PostgreSQL 18.
_CLEAR_AS_OWNER = """
SELECT pg_clear_attribute_stats(n.nspname::text, c.relname::text, a.attname::text, inherited)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN (VALUES (false), (true)) AS v (inherited)
WHERE (c.oid = ANY(%(oids)s) OR c.oid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s)))
  AND (inherited OR c.relkind NOT IN ('p', 'I')) AND (c.relkind IN ('r', 'p') OR NOT inherited)
"""


def renew_statistics(copy: psycopg.Connection[Any], places: Iterable[Place]) -> None:
    """Clear and renew the statistics of relations that the transaction changed.

    Args:
        copy: the restored database, in the transaction of the replay, which stays open.
        places: tables of the ledger's collections, whose statistics are renewed in any case.

    Raises:
        ServiceError: the copy refuses; the transaction is rolled back.
    """
    names = [place.identifier.as_string(copy) for place in places]
    problem = (
        "The planner's statistics of the copy cannot be renewed, so they may hold values of erased "
        "records"
    )
    with copy_failures(copy, problem):
        relations = copy.execute(_RELATIONS, [names]).fetchall()
        for _oid, schema, name, is_view, _ in relations:
            if not is_view:  # a refreshed view is locked already; others must not fill it meanwhile
                lock = SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE")
                copy.execute(lock.format(Identifier(schema, name)))
        oids = {"oids": [oid for oid, *_ in relations]}
        if scalar(copy, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            copy.execute(_CLEAR, oids)
            copy.execute(_CLEAR_EXTENDED, oids)
        elif copy.info.server_version >= 180000:
            copy.execute(_CLEAR_AS_OWNER, oids)
        for _oid, schema, name, _, is_partition in relations:
            if not is_partition:  # analyzed with the table above it
                copy.execute(SQL("ANALYZE {}").format(Identifier(schema, name)))


# A view that was created WITH NO DATA holds nothing and stays so.
_VIEWS = """
SELECT c.oid, n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated
ORDER BY 2, 3
"""
# Which relation a view reads, plain views included: they lead to other materialized views.
_READS = """
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class AND r.ev_type = '1'
"""
# Views that execute functions which may read any relation: the catalogue has no dependency of a
# function on what its text reads. It has none of a view on PostgreSQL's own functions either; of
# these, the functions below execute a query or read a table that an argument names.
_CALLERS = f"""
SELECT r.ev_class FROM pg_rewrite r
WHERE r.ev_type = '1' AND r.ev_class >= {FIRST_OWN_OBJECT} AND (
    EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass))
    OR r.ev_action::text ~ (
        SELECT format(':funcid (%s) ', string_agg(oid::text, '|')) FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
        AND proname ~ '^(query|table|cursor|schema|database)_to_xml|^ts_(stat|rewrite)$'))
"""  # noqa: S608 - fixed text
_CONTENT = "SELECT count(*), sum(hashtextextended((t.*)::text, 0)) FROM {} AS t"


def refresh_materialized_views(copy: psycopg.Connection[Any]) -> int:
    """Refresh each populated materialized view after those that it reads.

    Views that may read others through functions, and views that read such views, are refreshed
    again until their content stays the same, at most once more for each of them.

    Args:
        copy: the restored database, in a transaction, which stays open.

    Returns:
        Number of refreshed views.

    Raises:
        ServiceError: a view cannot be refreshed; the transaction is rolled back.
    """
    views = {oid: Place(*name) for oid, *name in copy.execute(_VIEWS).fetchall()}
    reads = copy.execute(_READS).fetchall()
    ordered = _ordered(views, reads)
    _refresh(copy, [views[oid] for oid in ordered])
    callers = {oid for (oid,) in copy.execute(_CALLERS).fetchall()}
    dependent = _with_readers(callers, reads)
    repeated = [views[oid] for oid in ordered if oid in dependent]
    if len(ordered) > 1:
        _refresh_until_settled(copy, repeated)
    return len(ordered)


def _ordered(views: Iterable[int], reads: Iterable[tuple[int, int]]) -> list[int]:
    """Return the views, each after those that it reads."""
    order: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(views, ()))
    for reader, read in reads:
        order.add(reader, read)
    try:
        return [oid for oid in order.static_order() if oid in views]
    except CycleError:  # plain views that read each other: no query can use them
        return list(views)


def _with_readers(relations: Iterable[int], reads: Sequence[tuple[int, int]]) -> set[int]:
    """Return relations with all views that read them, directly or through others."""
    readers: set[int] = set()
    added = set(relations)
    while added:
        readers |= added
        added = {reader for reader, read in reads if read in added} - readers
    return readers


def _refresh_until_settled(copy: psycopg.Connection[Any], views: Sequence[Place]) -> None:
    """Refresh views again, until a refresh of all of them changes none."""
    contents = _contents(copy, views)
    # A round corrects at least one more view of a chain. The content of a view with a random value
    # never stays the same.
    for _round in views:
        _refresh(copy, views)
        earlier, contents = contents, _contents(copy, views)
        if contents == earlier:
            break


def _contents(copy: psycopg.Connection[Any], views: Sequence[Place]) -> list[Any]:
    """Return the number of rows of each view with the sum of their hashes."""
    return [_executed(copy, _CONTENT, view).fetchone() for view in views]


def _refresh(copy: psycopg.Connection[Any], views: Sequence[Place]) -> None:
    for view in views:
        _executed(copy, "REFRESH MATERIALIZED VIEW {}", view)


def _executed(
    copy: psycopg.Connection[Any], statement: LiteralString, view: Place
) -> psycopg.Cursor[Any]:
    name = f"{view.schema}.{view.table}"
    problem = f"The materialized view {name} cannot be refreshed, so it may hold erased records"
    with copy_failures(copy, problem):
        return copy.execute(SQL(statement).format(view.identifier))
