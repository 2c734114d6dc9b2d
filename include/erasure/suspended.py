"""Suspend the application's triggers and rules while erasures are replayed on a restored copy.

They would copy old values into history tables, keep records that must be erased, or forbid the
change. Foreign keys stay in force.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier

from include.erasure.matching import kind_of
from include.services.errors import ServiceError, UsageError

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
    try:
        resume = _suspend(copy)
    except psycopg.Error as error:
        raise _explained(copy, error) from None
    yield
    try:
        for statement in resume:
            copy.execute(statement)
    except psycopg.Error as error:
        raise _explained(copy, error) from None


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
    row = copy.execute("SELECT current_setting('session_replication_role')").fetchone()
    if row == ("replica",):  # under which no foreign key is checked
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


def _explained(copy: psycopg.Connection[Any], error: psycopg.Error) -> ServiceError | UsageError:
    if not copy.broken:
        copy.rollback()
    if isinstance(error, errors.InsufficientPrivilege):
        return UsageError(
            "The role may not disable the triggers of the copy, so erased records cannot be "
            "erased again.",
            "Restore with the role that owns the tables, or with a superuser.",
        )
    return ServiceError(
        f"The triggers of the copy cannot be disabled ({kind_of(error)}).",
        "The copy is not fit for use. The log of its server tells more.",
    )
