"""Tests of the encoding for COPY ... (FORMAT binary)."""

from __future__ import annotations

import psycopg

from include.erasure import ledger
from include.local.postgres import EmbeddedPostgres

COPY = "COPY pg_temp.copied (number, name, key) FROM STDIN (FORMAT binary)"


def test_rows_that_copy_stream_encodes_are_read_unchanged_by_postgresql(postgres: EmbeddedPostgres):
    """The rows have numbers, texts, bytes and empty values. A stream without rows works too."""
    rows = [(1, "\u5305\u88f9", bytes(range(256))), (2**62, "", b""), (-1, "a\tb\n", b"\xff\xff")]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE copied (number bigint, name text, key bytea)")
        for sent in ([], rows):
            fields = [
                b"".join(
                    map(ledger.copy_field, (number.to_bytes(8, signed=True), name.encode(), key))
                )
                for number, name, key in sent
            ]
            with connection.cursor().copy(COPY) as copy:
                copy.write(ledger.copy_stream(3, fields))
            assert connection.execute("SELECT * FROM copied").fetchall() == sent
