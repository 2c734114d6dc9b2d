"""Rows that PostgreSQL reads by COPY ... (FORMAT binary)."""

from __future__ import annotations

import psycopg

from include.erasure import ledger
from include.local.postgres import EmbeddedPostgres

COPY = "COPY pg_temp.given (number, name, key) FROM STDIN (FORMAT binary)"


def test_the_server_reads_what_was_given(postgres: EmbeddedPostgres):
    """Numbers, texts and bytes, empty ones too; and no rows at all."""
    rows = [(1, "\u5305\u88f9", bytes(range(256))), (2**62, "", b""), (-1, "a\tb\n", b"\xff\xff")]
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE given (number bigint, name text, key bytea)")
        for some in ([], rows):
            fields = [
                b"".join(map(ledger.field, (number.to_bytes(8, signed=True), name.encode(), key)))
                for number, name, key in some
            ]
            with connection.cursor().copy(COPY) as into:
                into.write(ledger.stream(3, fields))
            assert connection.execute("SELECT * FROM given").fetchall() == some
