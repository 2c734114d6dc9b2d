"""Draft a policy pack from a live database: its schema, and how many values match each pattern.

A pattern describes the form of personal data, such as a phone number.
"""

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
    """Return the name unchanged if it is valid as fides_key and file name of a data map.

    Raises:
        UsageError: the name contains characters that are not allowed.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "The name of a data map has only letters, digits, '-', '.' and '_'.",
            "Name the data map with --name.",
        )
    return name


def survey(
    connection: psycopg.Connection[Any],
    *,
    name: str,
    progress: Progress | None = None,
) -> Draft:
    """Read a database's schema, count the values that match patterns, and draft a policy pack.

    A pattern describes the form of personal data, such as a phone number. The connection becomes
    read-only, and all statements about a table share one time limit. Each statement has its own
    transaction, so its locks are released at once. Only names and counts leave the database. For a
    table that cannot be read, personal data is guessed only from the names of its columns, and the
    draft states the reason.

    Args:
        connection: connection to the database, outside of a transaction.
        name: fides_key of the data map.
        progress: function that is called for each table with the label of the table, the number of
            tables that are done, and the total number of tables.

    Raises:
        UsageError: the name cannot be a fides_key, the database has no tables, no table can be
            read, or names of tables or columns are not UTF-8.
        ServiceError: the connection was lost.
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
    """Write the files of a drafted policy pack. If one of the files already exists, write none.

    Args:
        folder: folder of the policy pack.
        files: path inside the folder -> text of the file.

    Returns:
        Paths of the written files.

    Raises:
        UsageError: a file already exists, or the folder cannot be written.
    """
    paths = {folder / name: text for name, text in files.items()}
    if existing := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise UsageError(
            f"Nothing was written, because {', '.join(existing)} already exists.",
            "Name another folder with --out.",
        )
    try:
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(
            f"The draft cannot be written to {folder}: {error.strerror}.",
            "Name another folder with --out.",
        ) from None
    return list(paths)
