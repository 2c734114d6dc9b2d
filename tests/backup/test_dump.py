"""Test taking a backup: the manifest matches the dump, and a failed backup leaves nothing."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import zstandard

from include.backup.archive import read_archive
from include.backup.compare import Definitions, compare
from include.backup.dump import take_backup
from include.backup.manifest import restore_points
from include.backup.restore import restore
from include.encryption.crypto import decrypting
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ParcelSealError, ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from include.services.programs import pg_version, program
from tests.backup.support import SEEN, Taken, rows, run, take
from tests.support.holders import Holder


def test_row_counts_and_digests_in_manifest_match_the_dump(
    taken: Taken, rich: DatabaseAddress, operations: Holder, offline: Holder
):
    """The manifest has the row count and digest of each table, and the SHA-256 of the object."""
    manifest = taken.manifest
    counted = {
        (table.schema_name, table.name): table.rows for table in manifest.tables
    }  # children and partitions are tables of their own
    assert counted[("public", "animal")] == 1
    assert counted[("public", "dog")] == 2
    assert counted[("public", "scan_2026_all")] == 500
    assert counted[("public", "scan_2025")] == 0
    assert ("public", "scan") not in counted
    assert counted[("客户", 'Ta"ble 表')] == 3
    assert counted[("Großes Schema", "no_columns")] == 2
    content = taken.store.get(manifest.dump.key)
    assert manifest.dump.size == len(content)
    assert manifest.dump.sha256 == hashlib.sha256(content).hexdigest()
    with taken.source(operations.opening).archive() as stream:
        clear = b"".join(iter(lambda: stream.read(1 << 20), b""))
    reader = read_archive([clear])
    assert manifest.dump_bytes == len(clear)
    assert manifest.schema_sha256 == reader.schema_sha256()
    digests = {
        (table.schema, table.name): reader.digests[table.dump_id] for table in reader.tables()
    }
    assert {(table.schema_name, table.name): table.sha256 for table in manifest.tables} == {
        name: digest.sha256 for name, digest in digests.items()
    }
    assert manifest.large_objects.count == 3
    assert [recipient.key_id for recipient in manifest.recipients] == [
        operations.recipient.key_id,
        offline.recipient.key_id,
    ]
    assert manifest.tools["pg_dump"] == pg_version("pg_dump")
    assert (manifest.database, manifest.timezone) == ("courier", "UTC")
    assert manifest.id in manifest.dump.key


def test_backup_can_be_decrypted_and_listed_without_parcelseal(
    taken: Taken, operations: Holder, tmp_path: Path
):
    """The AWS Encryption SDK, zstd and pg_restore are sufficient. The object has no plaintext."""
    content = taken.store.get(taken.manifest.dump.key)
    assert b"PGDMP" not in content
    assert b"customer" not in content
    (tmp_path / "message").write_bytes(content)
    with (tmp_path / "message").open("rb") as message:
        packed = decrypting(message, operations.opening, {}, "x").read()
    clear = zstandard.ZstdDecompressor().stream_reader(packed).readall()
    listed = subprocess.run(
        [program("pg_restore"), "--list"], input=clear, check=True, capture_output=True
    )
    assert b"TABLE DATA public customer" in listed.stdout


def test_restored_rows_equal_manifest_despite_concurrent_writes(
    source: DatabaseAddress,
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
):
    """The dump and the row counts use the same snapshot."""
    run(
        source,
        """CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, fill text);
        INSERT INTO parent SELECT generate_series(1, 2000);
        INSERT INTO child SELECT n, n, repeat(md5(n::text), 90) FROM generate_series(1, 2000) n;""",
    )
    stop, written = threading.Event(), []

    def write() -> None:
        with psycopg.connect(source.conninfo(), autocommit=True) as conn:
            for number in itertools.count(10_000):
                if stop.is_set():
                    return
                with conn.transaction():
                    conn.execute("INSERT INTO parent VALUES (%s)", [number])
                    conn.execute("INSERT INTO child VALUES (%s, %s, 'new')", [number, number])
                    conn.execute("DELETE FROM child WHERE id = %s", [number - 9_999])
                written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(written) < 20:
            stop.wait(0.01)
        before = len(written)
        taken = take(source, store, recipients, signer)
        during = len(written) - before
    finally:
        stop.set()
        writer.join()
    assert during > 0
    counts = {table.name: table.rows for table in taken.manifest.tables}
    assert counts["parent"] >= counts["child"]
    assert counts["parent"] - 2000 == 2000 - (counts["child"] - (counts["parent"] - 2000))
    restored = restore(taken.source(operations.opening), target)
    assert restored.differences == ()
    assert compare(taken.source(operations.opening), target).different == ()
    assert rows(target, "SELECT count(*) FROM parent") == [(counts["parent"],)]


@pytest.fixture
def reader(server: DatabaseAddress, source: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """Return the address of ``source``, with the login of a role that only has pg_read_all_data."""
    name = f"dumper_{uuid.uuid4().hex[:8]}"
    run(server, f"CREATE ROLE {name} LOGIN PASSWORD 'pw' IN ROLE pg_read_all_data")
    yield DatabaseAddress({**source.parameters, "user": name}, "pw")
    run(source, f"DROP OWNED BY {name}")
    run(server, f"DROP ROLE {name}")


Take = Callable[[DatabaseAddress], Taken]


@pytest.fixture
def take_it(store: DirectoryStore, recipients: list[Recipient], signer: Signer) -> Take:
    return lambda address: take(address, store, recipients, signer)


def test_backup_succeeds_with_role_that_has_only_read_privileges(
    source: DatabaseAddress, reader: DatabaseAddress, take_it: Take
):
    """The tables and sequences belong to another role."""
    run(source, "CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t DEFAULT VALUES")
    assert take_it(reader).manifest.rows == 1


def test_backup_raises_usage_error_if_role_may_not_read_large_objects(
    source: DatabaseAddress, reader: DatabaseAddress, take_it: Take
):
    """pg_read_all_data does not include large objects."""
    run(source, "SELECT lo_from_bytea(4711, 'x')")
    with pytest.raises(UsageError, match=r"large objects.*GRANT SELECT ON LARGE OBJECT"):
        take_it(reader)
    run(source, f"GRANT SELECT ON LARGE OBJECT 4711 TO {reader.parameters['user']}")
    assert take_it(reader).manifest.large_objects.count == 1


def test_backup_raises_usage_error_if_password_is_wrong(reader: DatabaseAddress, take_it: Take):
    """The exit code is 2, and the message does not contain the password."""
    with pytest.raises(UsageError, match="refused the connection") as error:
        take_it(DatabaseAddress(reader.parameters, "wr0ng"))
    assert "wr0ng" not in str(error.value)


def test_backup_raises_usage_error_if_role_lacks_pg_read_all_data(
    source: DatabaseAddress, reader: DatabaseAddress, server: DatabaseAddress, take_it: Take
):
    """The error is raised before anything is dumped."""
    run(source, "CREATE TABLE t ()")
    run(server, f"REVOKE pg_read_all_data FROM {reader.parameters['user']}")
    with pytest.raises(UsageError, match="GRANT pg_read_all_data"):
        take_it(reader)


@pytest.mark.parametrize("fails", ["encrypt", "write", "commit", "clock", "nobody"])
def test_failed_backup_leaves_no_stored_object_no_thread_and_no_pg_dump_process(
    rich: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
):
    """The next backup then finds no leftover to delete."""

    class Stop(ServiceError):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stop("stop")

    expected: type[ParcelSealError] = Stop
    clocks = []
    if fails == "encrypt":
        monkeypatch.setattr("include.encryption.crypto.encrypting", stop)
    elif fails == "nobody":
        recipients, expected = [], UsageError
    elif fails == "clock":
        clocks, expected = [SEEN, type(SEEN)("x", "public", "customer", "no")], UsageError
    else:
        real = store.open_writer

        def open_writer(key: str) -> object:
            writer = real(key)
            monkeypatch.setattr(type(writer), fails, stop)
            return writer

        monkeypatch.setattr(store, "open_writer", open_writer)
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(expected):
        take_backup(
            rich, "courier", clocks, store, recipients, expires_after=lambda at: at + timedelta(1)
        )
    assert {thread.name for thread in threading.enumerate()} & {"dump", "zstd", "count"} <= before
    assert [item.key for item in store.list()] == []
    assert restore_points(store, "courier", [signer.public_pem]) == ([], [])
    active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'"
    assert rows(rich, active) == [(0,)]


def test_backup_stores_newest_value_of_date_column_and_reports_progress_in_bytes(
    rich: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """The newest values come from the snapshot. The reported number of bytes only increases."""
    reports: list[tuple[str, int]] = []
    backup = take_backup(
        rich,
        "courier",
        [SEEN],
        store,
        recipients,
        expires_after=lambda at: at + timedelta(days=90),
        dag_id="backup_offsite",
        run_id="r",
        progress=lambda stage, size: reports.append((stage, size)),
    )
    manifest = backup.manifest
    assert manifest.newest[0].moment == rows(rich, "SELECT max(seen) FROM customer")[0][0]
    assert manifest.expires_at - manifest.taken_at == timedelta(days=90)
    assert (manifest.dag_id, manifest.run_id) == ("backup_offsite", "r")
    assert reports == sorted(reports, key=lambda report: report[1])
    assert reports[-1][1] == manifest.dump_bytes
    assert backup.stored.sha256 == manifest.dump.sha256


def test_database_with_unusual_names_and_encoding_is_backed_up_and_restored(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
):
    """The encoding is not UTF-8, names have newlines and quotes, and the timezone is not UTC."""
    name = f'odd "{uuid.uuid4().hex[:6]}" k\';--'
    odd = new_database(
        'CREATE SCHEMA "a\'b; DROP TABLE x";'
        'CREATE TABLE "a\'b; DROP TABLE x"."行\n""1""" ("c\n;" text, at timestamptz);'
        'INSERT INTO "a\'b; DROP TABLE x"."行\n""1""" VALUES (\'王\', \'2026-11-24 10:00+08\');',
        name,
        "ENCODING 'EUC_CN' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0",
    )
    with server.connect(autocommit=True) as conn:
        conn.execute(
            psycopg.sql.SQL("ALTER DATABASE {} SET timezone = 'Asia/Shanghai'").format(
                psycopg.sql.Identifier(name)
            )
        )
        conn.execute(
            psycopg.sql.SQL("COMMENT ON DATABASE {} IS 'odd'").format(psycopg.sql.Identifier(name))
        )
    taken = take(odd, store, recipients, signer)
    assert taken.manifest.timezone == "Asia/Shanghai"
    assert restore(taken.source(operations.opening), target).differences == ()
    comparison = compare(taken.source(operations.opening), target)
    assert comparison.different == comparison.reordered == ()
    assert comparison.definitions == Definitions()
