"""Refresh the materialized views of a restored copy, whose content is older than the copy's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, LiteralString

import psycopg
from psycopg.sql import SQL

from include.erasure.matching import kind_of
from include.erasure.places import Place
from include.erasure.suspended import FIRST_OWN_OBJECT
from include.services.errors import ServiceError

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
    found: set[int] = set()
    added = set(relations)
    while added:
        found |= added
        added = {reader for reader, read in reads if read in added} - found
    return found


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
    try:
        return copy.execute(SQL(statement).format(view.identifier))
    except psycopg.Error as error:
        if not copy.broken:
            copy.rollback()
        raise ServiceError(
            f"The materialized view {view.schema}.{view.table} cannot be refreshed, so it may hold "
            f"erased records ({kind_of(error)}).",
            "The copy is not fit for use. The log of its server tells more.",
        ) from None
