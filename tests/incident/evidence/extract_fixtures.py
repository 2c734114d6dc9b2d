"""An access log with difficult values, stores with injected faults, and a child process to kill.

``python -m tests.incident.evidence.extract_fixtures FILE`` creates an extract with the settings in
FILE, and pauses while it writes the object.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from include.encryption.recipients import Recipient, recipient_from_pem
from include.incident.evidence.extract import (
    Extract,
    create_extract,
    encryption_context,
    object_key,
)
from include.incident.evidence.log_copy import LogQuery
from include.incident.rules import AccessLog, Lookup
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.directory_files import DirectoryWriter

NUMBER, DATABASE = "INC-2026-0001", "courier"
KEY, CONTEXT = object_key(NUMBER, DATABASE), encryption_context(NUMBER, DATABASE)
CLOCK = FixedClock(datetime(2026, 11, 26, 8, tzinfo=UTC))

# Twelve rows, one per minute from 12:00 UTC; the last texts are awkward for CSV and psql.
FILL = r"""
CREATE TABLE employee (employee_id int PRIMARY KEY, number text);
INSERT INTO employee VALUES (1, 'E001'), (2, 'E002'), (3, 'E''3\'), (4, NULL);
CREATE TABLE access_log (
    access_id bigint PRIMARY KEY, employee_id int, "pur ""pose"" %s :USER" text,
    accessed_at timestamptz NOT NULL, approval_id bigint
);
INSERT INTO access_log
SELECT n, 1 + n % 4, texts[n + 1], timestamptz '2026-11-24 12:00+00' + n * interval '1 minute',
       nullif(n, 3)
FROM generate_series(0, 11) n, (SELECT ARRAY[
    'delivery', '', NULL, E'two\nlines', E'\\.', E'\\.\n', 'say "so"', E'"\n"\r\n,', E'COPY 7\n',
    '投诉 🚚', E'\t\\N %s :USER ''', '"'] AS texts) t;
CREATE TABLE wide_log (access_id int, purpose text, accessed_at timestamptz NOT NULL);
"""
# Text that hardly compresses, so that the object has several parts.
WIDE = r"""
INSERT INTO wide_log SELECT n, (
    SELECT string_agg(encode(sha512((n * 100 + part)::text::bytea), 'hex'), '')
    FROM generate_series(1, 24) part
), timestamptz '2026-11-24 12:00+00' FROM generate_series(1, 12000) n;
"""
# The same times with a zone, without one in Shanghai, and as a date there.
ZONES = r"""
CREATE TABLE IF NOT EXISTS zones (
    access_id int PRIMARY KEY, employee_id int, accessed_at timestamptz, noted timestamp, day date
);
INSERT INTO zones SELECT n, 1, at, at AT TIME ZONE 'Asia/Shanghai',
    (at AT TIME ZONE 'Asia/Shanghai')::date
FROM unnest(ARRAY['2026-11-24 15:30Z', '2026-11-24 16:30Z', '2026-11-24 17:59Z',
    '2026-11-24 18:00Z', '2026-11-25 16:00Z', 'infinity', NULL]::timestamptz[])
    WITH ORDINALITY AS u(at, n) ON CONFLICT DO NOTHING;
"""

LOG = AccessLog(
    collection="access",
    subject="a.access_id",
    account=Lookup(column="employee_id", collection="employee", key="employee_id", name="number"),
    at="accessed_at",
    columns=("access_id", "employee_id", 'pur "pose" %s :USER', "accessed_at", "approval_id"),
)
WIDE_LOG = LOG.model_copy(
    update={"collection": "wide_log", "columns": ("access_id", "purpose", "accessed_at")}
)
TABLES = {
    "access": "access_log",
    "wide_log": "wide_log",
    "employee": "employee",
    "zones": "zones",
}
MAPPED = MappedDatabase.model_validate(
    {
        "name": DATABASE,
        "title": verbatim("Courier"),
        "connection": "customer_db",
        "schema_name": "public",
        "site": "beijing",
        "rto": "PT4H",
        "rpo": "PT24H",
        "collections": {
            name: MappedCollection(name=name, schema_name="public", table=table, fields={})
            for name, table in TABLES.items()
        },
    }
)
WHOLE = LogQuery(MAPPED, LOG)
WIDE_WHOLE = LogQuery(MAPPED, WIDE_LOG)


def minute(number: int, micro: int = 0) -> datetime:
    """Return a time that is a number of minutes after 12:00 UTC.

    Args:
        number: number of minutes.
        micro: microseconds to add.
    """
    return datetime(2026, 11, 24, 12, number, 0, micro, tzinfo=UTC)


def plain(source: DatabaseAddress, statement: str) -> bytes:
    """Return the CSV that the SQL command COPY outputs for a query."""
    with source.connect() as conn:
        conn.execute("SET timezone = 'UTC'; SET statement_timeout = 0")
        text = f"COPY ({statement}) TO STDOUT (FORMAT csv, HEADER)".encode()
        with conn.cursor().copy(text) as copy:
            return b"".join(bytes(piece) for piece in copy)


def run(source: DatabaseAddress, statement: str) -> None:
    """Run an SQL statement."""
    with psycopg.connect(source.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute(statement.encode())


class Disturbed(DirectoryStore):
    """A store that calls a function once, after it wrote a given number of bytes of an object."""

    def __init__(self, root: Path, after: int, action: Callable[[], object]) -> None:
        super().__init__(root)
        self.after, self.action = after, action

    def open_writer(self, key: str) -> DirectoryWriter:
        """Return a writer that calls the function once while it writes."""
        writer = super().open_writer(key)
        write, written = writer.write, 0

        def disturbing(data: bytes | bytearray | memoryview) -> int:
            nonlocal written
            before, written = written, written + len(data)
            if before < self.after <= written:
                self.action()
            return write(data)

        writer.write = disturbing  # type: ignore[method-assign] # a fault is put in on purpose
        return writer


def create(
    source: DatabaseAddress,
    store: ObjectStore,
    recipients: Sequence[Recipient],
    query: LogQuery = WHOLE,
    *,
    key: str = KEY,
    **more: Any,
) -> Extract:
    """Create an extract of the access log.

    Args:
        source: address of the database with the log.
        store: store of the extract.
        recipients: recipients; each recipient can decrypt the extract.
        query: rows to copy; default: all rows.
        key: key of the object in the store.
        more: further arguments of `create_extract`. By default, `keep` does nothing.
    """
    more.setdefault("keep", lambda _: None)
    return create_extract(source, query, store, key, recipients, CONTEXT, CLOCK, **more)


def pause_while_writing(settings: dict[str, Any]) -> None:
    """Create an extract, but print a line and pause when half of the object is written.

    Args:
        settings: content of the settings file.
    """

    def pause() -> None:
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        signal.pause()

    store = Disturbed(Path(settings["root"]), 2_000_000, pause)
    recipient = recipient_from_pem("operations", settings["certificate"].encode())
    create(DatabaseAddress.from_conninfo(settings["conninfo"]), store, [recipient], WIDE_WHOLE)


if __name__ == "__main__":
    pause_while_writing(json.loads(Path(sys.argv[1]).read_text()))
