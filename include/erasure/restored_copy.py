"""Suspend triggers of a restored copy during a replay, then renew its statistics and views.

Triggers and rules of the application could copy old values into history tables, keep records that
must be erased, or raise an error. Foreign keys are still enforced during the replay.
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
from include.erasure.tables import TableName
from include.services.database import scalar
from include.services.errors import UsageError

FIRST_OWN_OBJECT = 16384  # lower oids belong to PostgreSQL's own objects (FirstNormalObjectId)
# User tables, without tables of extensions that the role does not own.
_TABLES = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (pg_has_role(c.relowner, 'USAGE') OR NOT EXISTS (
       SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
       AND d.deptype = 'e'))
"""
# Triggers with PostgreSQL's own functions stay enabled: these enforce foreign keys and update text
# search columns of the same record. So does lo_manage of the extension lo, which deletes the large
# object of a deleted record.
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
def suspend_triggers(copy: psycopg.Connection[Any]) -> Iterator[None]:
    """Suspend triggers, rules and forced row security of a restored copy within a ``with`` block.

    They are suspended inside the open transaction. If an error or a kill ends the transaction,
    PostgreSQL rolls the suspension back, and they are active again.

    Args:
        copy: the restored database, in a transaction. The ``with`` block must check deferred
            foreign keys before it ends.

    Raises:
        UsageError: the role does not own a table that has triggers or rules.
        ServiceError: a statement fails on the copy.
    """
    with _trigger_failures(copy):
        resume = _suspend(copy)
    yield
    with _trigger_failures(copy):
        for statement in resume:
            copy.execute(statement)


@contextmanager
def suspend_event_triggers(copy: psycopg.Connection[Any]) -> Iterator[None]:
    """Suspend, within a ``with`` block, the event triggers that the current role may manage.

    They are disabled in the transaction that the caller has open, and enabled again at the end of
    the block. If the transaction is rolled back, they are enabled too.

    Raises:
        psycopg.Error: a statement fails on the copy.
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
    """Suspend triggers, rules and row security of a restored copy.

    Returns:
        The SQL statements that enable the triggers, rules and row security again.
    """
    # With the setting `replica`, PostgreSQL would check no foreign key.
    if scalar(copy, "SELECT current_setting('session_replication_role')") == "replica":
        copy.execute("SET LOCAL session_replication_role = origin")
    # Event triggers are suspended first and resumed last, since the other statements fire them.
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


# Relations that the transaction changed, cascades included; all relations if the server does not
# count changes. Tables of collections are always included, since the backup may contain statistics
# from before an earlier erasure.
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
# ANALYZE does not replace statistics of empty tables or of columns with the statistics target 0.
_CLEAR = """
DELETE FROM pg_statistic WHERE starelid = ANY(%(oids)s) OR starelid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s))
"""
_CLEAR_EXTENDED = """
DELETE FROM pg_statistic_ext_data WHERE stxoid IN (
    SELECT oid FROM pg_statistic_ext WHERE stxrelid = ANY(%(oids)s))
"""
# This function serves roles that are not superusers, from PostgreSQL 18.
_CLEAR_AS_OWNER = """
SELECT pg_clear_attribute_stats(n.nspname::text, c.relname::text, a.attname::text, inherited)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN (VALUES (false), (true)) AS v (inherited)
WHERE (c.oid = ANY(%(oids)s) OR c.oid IN (
    SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s)))
  AND (inherited OR c.relkind NOT IN ('p', 'I')) AND (c.relkind IN ('r', 'p') OR NOT inherited)
"""


def renew_statistics(copy: psycopg.Connection[Any], table_names: Iterable[TableName]) -> None:
    """Clear and renew the planner statistics of relations that the replay's transaction changed.

    The old statistics may contain values of erased records.

    Args:
        copy: the restored database, in the transaction of the replay, which stays open.
        table_names: tables whose statistics are renewed even if the transaction did not change
            them.

    Raises:
        ServiceError: a statement fails on the copy; the transaction is rolled back.
    """
    names = [table_name.identifier.as_string(copy) for table_name in table_names]
    problem = (
        "The planner's statistics of the copy cannot be renewed, so they may hold values of erased "
        "records"
    )
    with copy_failures(copy, problem):
        relations = copy.execute(_RELATIONS, [names]).fetchall()
        for _oid, schema, name, is_view, _ in relations:
            if not is_view:  # a refreshed view is locked already; no other session may analyze now
                lock = SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE")
                copy.execute(lock.format(Identifier(schema, name)))
        oids = {"oids": [oid for oid, *_ in relations]}
        if scalar(copy, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            copy.execute(_CLEAR, oids)
            copy.execute(_CLEAR_EXTENDED, oids)
        elif copy.info.server_version >= 180000:
            copy.execute(_CLEAR_AS_OWNER, oids)
        for _oid, schema, name, _, is_partition in relations:
            if not is_partition:  # analyzed with its partitioned table
                copy.execute(SQL("ANALYZE {}").format(Identifier(schema, name)))


# A view WITH NO DATA is empty and stays empty.
_VIEWS = """
SELECT c.oid, n.nspname::text, c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND c.relispopulated
ORDER BY 2, 3
"""
# The relations that each view reads. Plain views are included, since they read other views.
_READS = """
SELECT DISTINCT r.ev_class, d.refobjid
FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class AND r.ev_type = '1'
"""
# Views that execute functions which may read any relation. The catalogue does not record which
# relations a function reads, nor that a view uses one of PostgreSQL's own functions. The functions
# named below execute a query, or read a table that an argument names.
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
    """Refresh all populated materialized views, each after the views that it reads.

    PostgreSQL's catalogue does not record which views a function reads. Therefore views that call
    functions, and the views that read them, are refreshed repeatedly until their rows no longer
    change. The number of repetitions is at most the number of these views.

    Args:
        copy: the restored database, in a transaction, which stays open.

    Returns:
        Number of refreshed views.

    Raises:
        ServiceError: a view cannot be refreshed; the transaction is rolled back.
    """
    views = {oid: TableName(*name) for oid, *name in copy.execute(_VIEWS).fetchall()}
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
    """Return views in an order in which each view comes after the views that it reads.

    Args:
        views: oids of the views.
        reads: pairs of oids: a view, and a relation that the view reads.
    """
    order: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(views, ()))
    for reader, read in reads:
        order.add(reader, read)
    try:
        return [oid for oid in order.static_order() if oid in views]
    except CycleError:  # plain views that read each other, which no query can use
        return list(views)


def _with_readers(relations: Iterable[int], reads: Sequence[tuple[int, int]]) -> set[int]:
    """Return the oids of the given relations, and of all views that read them, even indirectly.

    Args:
        relations: oids of the relations.
        reads: pairs of oids: a view, and a relation that the view reads.
    """
    readers: set[int] = set()
    added = set(relations)
    while added:
        readers |= added
        added = {reader for reader, read in reads if read in added} - readers
    return readers


def _refresh_until_settled(copy: psycopg.Connection[Any], views: Sequence[TableName]) -> None:
    """Refresh views repeatedly until a refresh changes no rows.

    The number of refreshes is at most the number of views.
    """
    contents = _contents(copy, views)
    # Each round corrects at least one more view of a chain. The limit ends the loop for views with
    # random values, whose content always changes.
    for _round in views:
        _refresh(copy, views)
        earlier, contents = contents, _contents(copy, views)
        if contents == earlier:
            break


def _contents(copy: psycopg.Connection[Any], views: Sequence[TableName]) -> list[Any]:
    """Return a fingerprint of each view: the number of its rows, and the sum of the row hashes."""
    return [_execute(copy, _CONTENT, view).fetchone() for view in views]


def _refresh(copy: psycopg.Connection[Any], views: Sequence[TableName]) -> None:
    for view in views:
        _execute(copy, "REFRESH MATERIALIZED VIEW {}", view)


def _execute(
    copy: psycopg.Connection[Any], statement: LiteralString, view: TableName
) -> psycopg.Cursor[Any]:
    name = f"{view.schema}.{view.table}"
    problem = f"The materialized view {name} cannot be refreshed, so it may hold erased records"
    with copy_failures(copy, problem):
        return copy.execute(SQL(statement).format(view.identifier))
