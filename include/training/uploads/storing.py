"""Storing an uploaded file: all of it in one transaction, or nothing.

A roster or a list of courses takes the place of the one before; completions add up. The upload
itself stays in the history, with who handed it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from include.services.errors import ServiceError, UsageError
from include.training.tables import (
    training_completion,
    training_course,
    training_roster,
    training_upload,
)
from include.training.uploads.reading import COLUMNS, Kind, Upload

_TABLES = {
    Kind.ROSTER: training_roster,
    Kind.COURSES: training_course,
    Kind.COMPLETIONS: training_completion,
}
_LOCK_TIMEOUT = SQL("SET LOCAL lock_timeout = '60s'")
_LOCK = SQL("SELECT pg_advisory_xact_lock(hashtextextended('training:upload', 0))")
_STAGE = SQL(
    "CREATE TEMPORARY TABLE uploaded ON COMMIT DROP AS SELECT {} FROM training_completion"
    " WITH NO DATA"
)
# Somebody may fail and pass on one day, and a list may be corrected: passed counts.
_MEND = SQL("""
UPDATE training_completion AS t SET passed = true, upload_id = {}
FROM uploaded AS u
WHERE (t.person, t.course, t.version, t.completed_on)
    = (u.person, u.course, u.version, u.completed_on) AND u.passed AND NOT t.passed""")
_ADD = SQL("""
INSERT INTO training_completion (upload_id, person, course, version, completed_on, passed)
SELECT {}, person, course, version, completed_on, bool_or(passed) FROM uploaded AS u
WHERE NOT EXISTS (
    SELECT FROM training_completion AS t
    WHERE (t.person, t.course, t.version, t.completed_on)
        = (u.person, u.course, u.version, u.completed_on)
)
GROUP BY person, course, version, completed_on""")


@dataclass(frozen=True)
class Stored:
    """What became of a file.

    Attributes:
        id: of the upload; that of the earlier one where the file is the same.
        kind: what it holds.
        same: whether the very same file stands already, and nothing was done.
        lines: rows of the file.
        added: rows that came in.
        mended: completions that stood as not passed and are passed now.
        replaced: rows of the file that it takes the place of; None where it takes none.
        form: its encoding and delimiter; empty where it was not read.
    """

    id: int
    kind: Kind
    same: bool
    lines: int
    added: int = 0
    mended: int = 0
    replaced: int | None = None
    form: str = ""


@dataclass(frozen=True)
class Past:
    """An upload of the history.

    Attributes:
        id: its number.
        kind: what it holds.
        sha256: of the file.
        lines: rows of the file.
        uploaded_by: who handed it in.
        uploaded_at: when.
        stands: whether its rows count; those of a roster or courses do until the next one.
    """

    id: int
    kind: Kind
    sha256: str
    lines: int
    uploaded_by: str
    uploaded_at: datetime
    stands: bool


def store(
    conn: Connection, upload: Upload, *, by: str, at: datetime, shrinks: bool = False
) -> Stored:
    """Read a file and store its rows.

    Args:
        conn: the state database, in a transaction that ends with this.
        upload: the file.
        by: user id of who hands it in.
        at: the moment.
        shrinks: that a roster with fewer than half of the people before is meant so.

    Raises:
        UploadRefused: the file has faults.
        UsageError: nobody is named, the roster lost more than half of its lines, or the file was
            changed meanwhile.
        ServiceError: another upload goes on for more than a minute, or the database was lost.
    """
    if not by.strip():
        raise UsageError("Nobody is named who hands it in.", "Name the person with --by.")
    raw = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    try:
        return _store(conn, raw, upload, by.strip(), at, shrinks)
    except psycopg.errors.LockNotAvailable:
        raise ServiceError(
            "Another upload has been going on for more than a minute.",
            "Wait for it to end; this one changed nothing.",
        ) from None
    except (psycopg.OperationalError, OperationalError):
        raise ServiceError(
            "The state database was lost.",
            "See that it runs, and upload the file again; nothing of it was stored.",
        ) from None


def _store(
    conn: Connection,
    raw: psycopg.Connection[Any],
    upload: Upload,
    by: str,
    at: datetime,
    shrinks: bool,
) -> Stored:
    raw.execute(_LOCK_TIMEOUT)
    raw.execute(_LOCK)
    digest = upload.digest()
    same, before = _earlier(conn, upload.kind, digest)
    if same is not None:
        return same
    row = {"kind": str(upload.kind), "sha256": digest, "lines": 0}
    row |= {"uploaded_by": by, "uploaded_at": at}
    statement = training_upload.insert().values(row).returning(training_upload.c.id)
    number = int(conn.scalars(statement).one())
    if upload.kind is Kind.COMPLETIONS:
        before = None
        added, mended = _add(raw, upload, number)
    else:
        added, mended = _replace(raw, upload, number), 0
    if upload.digest() != digest:
        raise UsageError(
            "The file was changed while it was read.", "Upload it again; nothing of it was stored."
        )
    if upload.kind is Kind.ROSTER and before and added * 2 < before and not shrinks:
        raise UsageError(
            f"This roster has {added:,} lines, and the one before has {before:,}: an export that "
            "was cut short would end the reminders of everybody else. Nothing of it was taken.",
            "If it is meant so, say --shrinks.",
        )
    mark = training_upload.update().where(training_upload.c.id == number)
    conn.execute(mark.values(lines=upload.lines))
    return Stored(number, upload.kind, False, upload.lines, added, mended, before, upload.form)


def _earlier(conn: Connection, kind: Kind, digest: str) -> tuple[Stored | None, int | None]:
    """The same file where it stands already, and the lines of the last one of its kind."""
    table = training_upload.c
    past = select(table.id, table.sha256, table.lines).where(table.kind == str(kind))
    if kind is Kind.COMPLETIONS:  # they all stand
        past = past.where(table.sha256 == digest)
    last = conn.execute(past.order_by(table.id.desc()).limit(1)).first()
    if last is None:
        return None, None
    if last.sha256 != digest:
        return None, int(last.lines)
    return Stored(int(last.id), kind, True, int(last.lines)), None


def _replace(raw: psycopg.Connection[Any], upload: Upload, number: int) -> int:
    table = _table(upload.kind)
    names = SQL(", ").join(map(Identifier, _columns(upload.kind)))
    into = SQL("COPY {} (upload_id, {}) FROM STDIN").format(table, names)
    with raw.cursor() as cursor:
        with cursor.copy(into) as copy:
            for row in upload.rows():
                copy.write_row((number, *row))
        cursor.execute(SQL("DELETE FROM {} WHERE upload_id <> {}").format(table, number))
        cursor.execute(SQL("ANALYZE {}").format(table))
    return upload.lines


def _add(raw: psycopg.Connection[Any], upload: Upload, number: int) -> tuple[int, int]:
    """Add completions that are not there yet; returns how many, and how many now are passed."""
    names = SQL(", ").join(map(Identifier, _columns(upload.kind)))
    with raw.cursor() as cursor:
        cursor.execute(_STAGE.format(names))
        with cursor.copy("COPY uploaded FROM STDIN") as copy:
            for row in upload.rows():
                copy.write_row(row)
        cursor.execute("ANALYZE uploaded")
        mended = cursor.execute(_MEND.format(number)).rowcount
        added = cursor.execute(_ADD.format(number)).rowcount
        cursor.execute("DROP TABLE uploaded")
        cursor.execute("ANALYZE training_completion")
    return added, mended


def _columns(kind: Kind) -> list[str]:
    return [column.name for column in COLUMNS[kind]]


def _table(kind: Kind) -> Composed:
    return SQL("{}").format(Identifier(_TABLES[kind].name))


def listed(conn: Connection) -> list[Past]:
    """Return the uploads, the newest first."""
    table = training_upload.c
    newest = dict(conn.execute(select(table.kind, func.max(table.id)).group_by(table.kind)).all())
    columns = [table[name] for name in Past.__dataclass_fields__ if name != "stands"]
    rows = conn.execute(select(*columns).order_by(table.id.desc())).mappings()
    return [
        Past(
            **{**row, "kind": Kind(row["kind"])},
            stands=row["kind"] == Kind.COMPLETIONS or newest[row["kind"]] == row["id"],
        )
        for row in rows
    ]
