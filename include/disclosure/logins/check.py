"""Count what a transient login reads, with the rights of the login."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.disclosure.extracts.counting import CountedExtract


def count_view(connection: psycopg.Connection[Any], login: str, view: str) -> CountedExtract:
    """Return the number of records and columns that a login reads now.

    Args:
        connection: connection of the workflow's login, which is a member of the role.
        login: name of the login and of its schema.
        view: name of its view.

    Raises:
        psycopg.Error: the login cannot read its view.
    """
    with connection.transaction(force_rollback=True):
        connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(login)))
        cursor = connection.execute(SQL("SELECT * FROM {} LIMIT 0").format(Identifier(login, view)))
        columns = len(cursor.description or ())
        counted = connection.execute(
            SQL("SELECT count(*) FROM {}").format(Identifier(login, view))
        ).fetchone()
    assert counted is not None
    return CountedExtract(int(counted[0]), columns)
