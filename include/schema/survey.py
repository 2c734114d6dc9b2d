"""Survey of a whole live database, from which ``config map`` drafts a pack."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from include.schema.draft import Draft, draft_pack, explained, first_refusal
from include.schema.guess import guess
from include.schema.live import read_schema
from include.schema.patterns import NO_RIGHT, count_patterns
from include.services.database import unreadable_text
from include.services.errors import ServiceError, UsageError

Progress = Callable[[str, int, int], None]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
CATALOGUE_TIMEOUT = "60s"


def require_name(name: str) -> str:
    """Return a name that can be a data map's fides_key.

    Raises:
        UsageError: it cannot; it becomes the name of folders.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "The name of a data map has only letters, digits, '-', '.' and '_'.",
            "Give one with --name.",
        )
    return name


def survey(
    connection: psycopg.Connection[Any],
    *,
    name: str,
    progress: Progress | None = None,
) -> Draft:
    """Read a database's schema, count its values by patterns, and draft a pack for it.

    The connection becomes read-only, and all statements about a table have one time limit. Each
    statement has its own transaction, so that no lock is held longer. Only names and counts leave
    the database. A table that cannot be read is drafted by its names, and the draft says why.

    Args:
        connection: to the database, with no transaction begun.
        name: fides_key of the data map.
        progress: called with a table's label, the number of tables done, and of all tables.

    Raises:
        UsageError: the name cannot be a fides_key, there is no table to map, no table can be read,
            or names of tables or columns are not UTF-8.
        ServiceError: the database went away.
    """
    require_name(name)
    report = progress or (lambda label, done, total: None)
    try:
        connection.read_only = True
        with connection.transaction():
            connection.execute(
                sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(CATALOGUE_TIMEOUT))
            )
            live = read_schema(connection)
        tables = {key: table for key, table in live.tables.items() if table.kind != "view"}
        counts = {}
        for done, (key, table) in enumerate(tables.items()):
            report(table.label, done, len(tables))
            counts[key] = count_patterns(connection, table)
        report("", len(tables), len(tables))
    except psycopg.Error as error:  # the text of PostgreSQL's errors quotes values
        raise unreadable_text(error) or ServiceError(
            f"The schema cannot be read (SQLSTATE {error.sqlstate or 'unknown'}).",
            "Check that the server runs and that its user may read the catalogue.",
        ) from None
    if not tables:
        raise UsageError(
            "The database has no tables to map.", "Check the database's name and the user's rights."
        )
    if refusal := first_refusal({tables[key].label: table for key, table in counts.items()}):
        raise _unreadable(*refusal, connection.info.user)
    return draft_pack(live, counts, guess(live, counts), name=name)


def _unreadable(label: str, code: str, user: str) -> UsageError:
    reason, action = explained(code)
    if code == NO_RIGHT:
        action = f"GRANT pg_read_all_data TO {sql.Identifier(user).as_string()}; and draft again"
    advice = f"{action[0].upper()}{action[1:]}."
    return UsageError(f"No table could be read. {label}: {reason}.", advice)


def write_draft(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write a draft's files; none is written where one of them is there already.

    Raises:
        UsageError: a file exists, or the folder cannot be written.
    """
    paths = {folder / name: text for name, text in files.items()}
    if there := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise UsageError(
            f"Nothing was written, as there is already {', '.join(there)}.",
            "Choose another folder with --out.",
        )
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(
            f"The draft cannot be written to {folder}: {error.strerror}.",
            "Choose another folder with --out.",
        ) from None
    return list(paths)
