"""What the customers' database refuses: said as a missing right or a lock, without its words.

PostgreSQL says it in the server's language and may quote values, so only names that the pack has
anyway are taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from include.intake.names import Incoming
from include.services.errors import ServiceError, UsageError


@contextmanager
def refusals(connection: psycopg.Connection[Any], incoming: Incoming) -> Iterator[None]:
    """Make the project's own errors of rights that are missing and of locks that others hold.

    Raises:
        UsageError: a right is missing, or row security hides rows.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        kind, name = _named(error, incoming)
        right = f"USAGE on the schema {name}" if kind == "schema" else f"a right on {kind} {name}"
        raise UsageError(
            f"The user {connection.info.user} lacks {right}, or row security would hide "
            f"rows of it (SQLSTATE {error.sqlstate}).",
            "Grant it: the configuration check prints the statement when it tries the connections "
            "(--connect). Where a table has row security, the user needs BYPASSRLS.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        kind, name = _named(error, incoming)
        raise ServiceError(
            f"Another session holds a lock on {kind} {name} (SQLSTATE {error.sqlstate}).",
            "No record was let in, and the task is repeated. See in pg_locks who holds it.",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise ServiceError(
            f"A statement about {incoming.rule.collection} took too long, or was cancelled "
            f"(SQLSTATE {error.sqlstate}).",
            "No record was let in, and the task is repeated. See in pg_stat_activity what keeps "
            "it.",
        ) from None


def _named(error: psycopg.Error, incoming: Incoming) -> tuple[str, str]:
    """Kind and name of what an error is about, as far as PostgreSQL tells."""
    collections = incoming.database.collections.values()
    said = f"{error.diag.table_name or ''} {error.diag.message_primary or ''}"
    for kind, names in (
        ("the table", {one.table for one in collections}),
        ("schema", {one.schema_name for one in collections}),
    ):
        for name in sorted(names, key=len, reverse=True):
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said):
                return kind, name
    return "a table that the review reads beside", incoming.rule.collection
