"""Refresh the materialized views of a restored copy, whose content is older than the copy's."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.erasure.matching import kind_of
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


def refresh_materialized_views(copy: psycopg.Connection[Any]) -> int:
    """Refresh each populated materialized view after those that it reads.

    Args:
        copy: the restored database, in a transaction, which stays open.

    Returns:
        Number of refreshed views.

    Raises:
        ServiceError: a view cannot be refreshed; the transaction is rolled back.
    """
    views = {oid: (schema, name) for oid, schema, name in copy.execute(_VIEWS).fetchall()}
    order: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(views, ()))
    for reader, read in copy.execute(_READS).fetchall():
        order.add(reader, read)
    try:
        ordered = [oid for oid in order.static_order() if oid in views]
    except CycleError:  # plain views that read each other: no query can use them
        ordered = list(views)
    for oid in ordered:
        try:
            copy.execute(SQL("REFRESH MATERIALIZED VIEW {}").format(Identifier(*views[oid])))
        except psycopg.Error as error:
            if not copy.broken:
                copy.rollback()
            raise ServiceError(
                f"The materialized view {'.'.join(views[oid])} cannot be refreshed, so it may hold "
                f"erased records ({kind_of(error)}).",
                "The copy is not fit for use. The log of its server tells more.",
            ) from None
    return len(ordered)
