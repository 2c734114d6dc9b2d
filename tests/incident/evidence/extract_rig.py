"""A log of accesses full of what hurts, stores that are disturbed on purpose, and a child to kill.

``python -m tests.incident.evidence.extract_rig FILE`` makes an extract as the file says and waits
for ever in its midst.
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
from include.incident.evidence.extract import Extract, context_of, extract, key_of
from include.incident.evidence.log_copy import LogQuery
from include.incident.rules import AccessLog, Lookup
from include.policy.datamap import MappedCollection, MappedDatabase
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.directory_files import DirectoryWriter

NUMBER, DATABASE = "INC-2026-0001", "courier"
KEY, CONTEXT = key_of(NUMBER, DATABASE), context_of(NUMBER, DATABASE)
CLOCK = FixedClock(datetime(2026, 11, 26, 8, tzinfo=UTC))

# Twelve rows, one a minute from 12:00 UTC; the last texts are what CSV and psql trip over.
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
# Text that hardly compresses: a stream of some parts, of which most are still to come when the
# first one is stored.
WIDE = r"""
INSERT INTO wide_log SELECT n, (
    SELECT string_agg(encode(sha512((n * 100 + part)::text::bytea), 'hex'), '')
    FROM generate_series(1, 24) part
), timestamptz '2026-11-24 12:00+00' FROM generate_series(1, 12000) n;
"""
# The same moments with a zone, in Shanghai without one, and as a day there.
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
        "title": "Courier",
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
    """So many minutes after twelve, UTC."""
    return datetime(2026, 11, 24, 12, number, 0, micro, tzinfo=UTC)


def plain(source: DatabaseAddress, statement: str) -> bytes:
    """What COPY gives for a query, as the server sends it."""
    with source.connect() as conn:
        conn.execute("SET timezone = 'UTC'; SET statement_timeout = 0")
        text = f"COPY ({statement}) TO STDOUT (FORMAT csv, HEADER)".encode()
        with conn.cursor().copy(text) as copy:
            return b"".join(bytes(one) for one in copy)


def run(source: DatabaseAddress, statement: str) -> None:
    """Run one statement."""
    with psycopg.connect(source.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute(statement.encode())


class Disturbed(DirectoryStore):
    """Does something when so many bytes of an object were written."""

    def __init__(self, root: Path, after: int, what: Callable[[], object]) -> None:
        super().__init__(root)
        self.after, self.what = after, what

    def open_writer(self, key: str) -> DirectoryWriter:
        """A writer that disturbs once."""
        writer = super().open_writer(key)
        write, written = writer.write, 0

        def disturbing(data: bytes | bytearray | memoryview) -> int:
            nonlocal written
            before, written = written, written + len(data)
            if before < self.after <= written:
                self.what()
            return write(data)

        writer.write = disturbing  # type: ignore[method-assign] # a fault is put in on purpose
        return writer


def made(
    source: DatabaseAddress,
    store: ObjectStore,
    recipients: Sequence[Recipient],
    query: LogQuery = WHOLE,
    *,
    key: str = KEY,
    **more: Any,
) -> Extract:
    """Make an extract; what is known of it is kept nowhere unless the test says so."""
    more.setdefault("keep", lambda _: None)
    return extract(source, query, store, key, recipients, CONTEXT, CLOCK, **more)


def wait_in_the_midst(told: dict[str, Any]) -> None:
    """Say so and wait for ever when the object is half written."""

    def pause() -> None:
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        signal.pause()

    store = Disturbed(Path(told["root"]), 2_000_000, pause)
    recipient = recipient_from_pem("operations", told["certificate"].encode())
    made(DatabaseAddress.from_conninfo(told["conninfo"]), store, [recipient], WIDE_WHOLE)


if __name__ == "__main__":
    wait_in_the_midst(json.loads(Path(sys.argv[1]).read_text()))
