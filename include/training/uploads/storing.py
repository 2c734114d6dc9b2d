"""Store the rows of an uploaded file in one transaction: all rows or none.

A roster or a list of courses replaces the earlier upload of the same kind. Completions are added to
the completions that are already stored. The history lists each upload with the person who uploaded
it.
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
# A person may fail and pass on the same day, or a list is corrected: the course is passed then
_MARK_PASSED = SQL("""
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
class StoredUpload:
    """The result of an upload.

    Attributes:
        id: id of the upload, or of the earlier upload if the same file was stored before.
        kind: kind of the file.
        was_stored_before: whether the same file was stored before. In that case nothing was
            changed.
        lines: number of rows of the file.
        added: number of rows that were added.
        corrected: number of completions that changed from not passed to passed.
        replaced: number of rows of the earlier file that this file replaced; None if this file
            replaced no other file.
        file_format: encoding and delimiter of the file as text; empty if the file was not read.
    """

    id: int
    kind: Kind
    was_stored_before: bool
    lines: int
    added: int = 0
    corrected: int = 0
    replaced: int | None = None
    file_format: str = ""


@dataclass(frozen=True)
class UploadRecord:
    """An entry in the history of uploads.

    Attributes:
        id: id of the upload.
        kind: kind of the file.
        sha256: hex digest of the file.
        lines: number of rows of the file.
        uploaded_by: user id of the person who uploaded the file.
        uploaded_at: time of the upload.
        is_in_use: whether the rows of the upload are in use. The rows of a roster or a list of
            courses are in use until the next upload of that kind.
    """

    id: int
    kind: Kind
    sha256: str
    lines: int
    uploaded_by: str
    uploaded_at: datetime
    is_in_use: bool


def store_upload(
    conn: Connection, upload: Upload, *, by: str, at: datetime, shrinks: bool = False
) -> StoredUpload:
    """Read an uploaded file and store its rows.

    Args:
        conn: connection to the state database, in a transaction. The transaction should end right
            after this call, because other uploads have to wait until then.
        upload: the file.
        by: user id of the person who uploads the file.
        at: time of the upload.
        shrinks: whether a roster may have fewer than half of the rows of the earlier roster.

    Raises:
        UploadRefused: the file has faults.
        UsageError: ``by`` is empty, a roster has fewer than half of the rows of the earlier roster
            and `shrinks` is False, or the file changed while it was read.
        ServiceError: another upload takes more than a minute, or the connection to the database was
            lost.
    """
    if not by.strip():
        raise UsageError(
            "The person who uploads the file is not named.", "Name the person with --by."
        )
    raw = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    try:
        return _store_locked(conn, raw, upload, by.strip(), at, shrinks)
    except psycopg.errors.LockNotAvailable:
        raise ServiceError(
            "Another upload of training data has been running for more than a minute.",
            "Wait until the other upload ends, then upload the file again. "
            "Nothing of this file was stored.",
        ) from None
    except (psycopg.OperationalError, OperationalError):
        raise ServiceError(
            "The connection to the state database was lost.",
            "Check that the state database runs, then upload the file again. "
            "Nothing of this file was stored.",
        ) from None


def _store_locked(
    conn: Connection,
    raw: psycopg.Connection[Any],
    upload: Upload,
    by: str,
    at: datetime,
    shrinks: bool,
) -> StoredUpload:
    raw.execute(_LOCK_TIMEOUT)
    raw.execute(_LOCK)
    digest = upload.digest()
    earlier, before = _find_earlier(conn, upload.kind, digest)
    if earlier is not None:
        return earlier
    row = {"kind": str(upload.kind), "sha256": digest, "lines": 0}
    row |= {"uploaded_by": by, "uploaded_at": at}
    statement = training_upload.insert().values(row).returning(training_upload.c.id)
    number = int(conn.scalars(statement).one())
    if upload.kind is Kind.COMPLETIONS:
        before = None
        added, corrected = _add_completions(raw, upload, number)
    else:
        added, corrected = _replace_rows(raw, upload, number), 0
    if upload.digest() != digest:
        raise UsageError(
            "The file was changed while it was read.",
            "Upload the file again. Nothing of this file was stored.",
        )
    if upload.kind is Kind.ROSTER and before and added * 2 < before and not shrinks:
        raise UsageError(
            f"This roster has {added:,} lines, but the roster before has {before:,}. An incomplete "
            "export would end the reminders of all missing people, so nothing of it was stored.",
            "If the roster is complete, upload it with --shrinks.",
        )
    statement_lines = training_upload.update().where(training_upload.c.id == number)
    conn.execute(statement_lines.values(lines=upload.lines))
    return StoredUpload(
        number, upload.kind, False, upload.lines, added, corrected, before, upload.file_format
    )


def _find_earlier(
    conn: Connection, kind: Kind, digest: str
) -> tuple[StoredUpload | None, int | None]:
    """Find an earlier upload of the same file, or else count the rows that the file will replace.

    Args:
        conn: connection to the state database.
        kind: kind of the file.
        digest: SHA-256 of the file.

    Returns:
        A pair. The first value is the earlier upload of the same file, or None. The second value is
        the number of rows that the file will replace. It is None if the same file was uploaded
        before, if there is no earlier upload of this kind, or if the kind is completions.
    """
    table = training_upload.c
    uploads = select(table.id, table.sha256, table.lines).where(table.kind == str(kind))
    if kind is Kind.COMPLETIONS:  # all of them are in use
        uploads = uploads.where(table.sha256 == digest)
    last = conn.execute(uploads.order_by(table.id.desc()).limit(1)).first()
    if last is None:
        return None, None
    if last.sha256 != digest:
        return None, int(last.lines)
    return StoredUpload(int(last.id), kind, True, int(last.lines)), None


def _replace_rows(raw: psycopg.Connection[Any], upload: Upload, number: int) -> int:
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


def _add_completions(raw: psycopg.Connection[Any], upload: Upload, number: int) -> tuple[int, int]:
    """Add new completions, and update stored completions that changed from not passed to passed.

    Args:
        raw: psycopg connection to the state database, in a transaction.
        upload: file with completions.
        number: id of the upload.

    Returns:
        The number of added completions, and the number of updated completions.
    """
    names = SQL(", ").join(map(Identifier, _columns(upload.kind)))
    with raw.cursor() as cursor:
        cursor.execute(_STAGE.format(names))
        with cursor.copy("COPY uploaded FROM STDIN") as copy:
            for row in upload.rows():
                copy.write_row(row)
        cursor.execute("ANALYZE uploaded")
        corrected = cursor.execute(_MARK_PASSED.format(number)).rowcount
        added = cursor.execute(_ADD.format(number)).rowcount
        cursor.execute("DROP TABLE uploaded")
        cursor.execute("ANALYZE training_completion")
    return added, corrected


def _columns(kind: Kind) -> list[str]:
    return [column.name for column in COLUMNS[kind]]


def _table(kind: Kind) -> Composed:
    return SQL("{}").format(Identifier(_TABLES[kind].name))


def list_uploads(conn: Connection) -> list[UploadRecord]:
    """Return the history of uploads, newest first."""
    table = training_upload.c
    newest = dict(conn.execute(select(table.kind, func.max(table.id)).group_by(table.kind)).all())
    columns = [table[name] for name in UploadRecord.__dataclass_fields__ if name != "is_in_use"]
    rows = conn.execute(select(*columns).order_by(table.id.desc())).mappings()
    return [
        UploadRecord(
            **{**row, "kind": Kind(row["kind"])},
            is_in_use=row["kind"] == Kind.COMPLETIONS or newest[row["kind"]] == row["id"],
        )
        for row in rows
    ]
