"""Take a backup: dump, compress, encrypt and upload in one stream, without plaintext on disk."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import zstandard

from include.backup import manifest as manifests
from include.backup.archive import ArchiveError, ArchiveReader
from include.backup.archive_entry import Entry, is_readable
from include.backup.manifest import (
    HeadRecord,
    LargeObjectsRecord,
    Manifest,
    TableRecord,
)
from include.backup.point_folder import DUMP_NAME, ObjectRecord, folder
from include.backup.snapshot import (
    NewestRecordColumn,
    PgDump,
    Snapshot,
    missing_tables,
    open_snapshot,
    unreadable_name,
)
from include.encryption.crypto import EncryptionRecord, RecipientRecord
from include.encryption.recipients import Recipient
from include.encryption.stream import COMPRESSION, FullReader, Stage, compressed
from include.services.database import (
    DatabaseAddress,
    DatabaseUnavailable,
    lacks_library,
    lost,
)
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore, StoredObject
from include.services.programs import pg_version

# When pg_dump starts, the connection of the snapshot holds a lock on every table. If pg_dump has to
# wait for a lock, it waits for a DROP or ALTER that waits for this connection: a deadlock that also
# blocks other users of the table.
LOCK_WAIT = "3s"

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Backup:
    """A backup whose encrypted dump is in the store.

    The backup becomes a restore point when its manifest is signed.

    Attributes:
        manifest: manifest of the backup, not signed yet.
        stored: encrypted dump in the store.
        missing: names of mapped tables that the database lacks.
    """

    manifest: Manifest
    stored: StoredObject
    missing: tuple[str, ...] = ()


def take_backup(
    source: DatabaseAddress,
    database: str,
    columns: Sequence[NewestRecordColumn],
    store: ObjectStore,
    recipients: Sequence[Recipient],
    *,
    mapped: Sequence[tuple[str, str]] = (),
    expires_after: Callable[[datetime], datetime],
    dag_id: str = "",
    run_id: str = "",
    on_begin: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Backup:
    """Dump a database into an encrypted object in the store, and return the backup.

    Args:
        source: live database. A login with the role pg_read_all_data is sufficient.
        database: name of the database in the data map. The key of the stored object begins with it.
        columns: columns whose newest value is recorded in the manifest.
        store: off-site store.
        recipients: holders of keys. Each of them alone can decrypt the backup.
        mapped: schema and name of each table in the data map. Tables that the database lacks are
            returned in `Backup.missing`.
        expires_after: function that receives the time of the backup, and returns the time at which
            the restore point expires.
        dag_id: id of the workflow.
        run_id: id of the run.
        on_begin: function that is called with the restore point's id before anything is stored.
        progress: function that is called with "dumped" and the number of bytes dumped so far.

    Raises:
        UsageError: the password, the privileges or the data map are wrong, or the name of an object
            cannot be decoded.
        ServiceError: the database, pg_dump or the store failed. Nothing remains in the store.
    """
    with open_snapshot(source) as snapshot:
        missing = missing_tables(snapshot.connection, mapped, source.display_name)
        point = manifests.new_id(snapshot.taken_at, secrets.token_hex(3))
        context = {"database": database, "restore_point": point}
        key = folder(database, point) + DUMP_NAME
        if on_begin:
            on_begin(point)
        with _PgDump(source, snapshot, progress) as dump, store.open_writer(key) as writer:
            counts = _Counts(snapshot, dump.reader)
            with (
                counts,
                Stage(dump.pieces, "dump") as clear,
                Stage(lambda: compressed(clear), "zstd") as zstd,
                dump.stopped_on_error(),
            ):
                # Takes 0.3 s to load; pg_dump reads the catalogue meanwhile.
                from include.encryption import crypto

                message = crypto.encrypting(FullReader(zstd), recipients, context)
                while piece := message.read(crypto.FRAME):
                    writer.write(piece)
                dump.finish()
            tables = counts.tables()
            newest = snapshot.newest(columns)
            mappings = snapshot.mappings_without_options()
            stored = writer.commit()
    return Backup(
        Manifest(
            id=point,
            database=database,
            taken_at=snapshot.taken_at,
            lsn=snapshot.lsn,
            server_version=snapshot.server_version,
            timezone=snapshot.timezone,
            tools={"pg_dump": pg_version("pg_dump"), "zstandard": zstandard.__version__},
            schema_sha256=dump.reader.schema_sha256(),
            tables=tables,
            large_objects=LargeObjectsRecord.of(dump.reader.large_objects),
            newest=newest,
            dump=ObjectRecord(
                key=key,
                size=stored.size,
                sha256=stored.sha256,
                checksum=stored.checksum,
                version_id=stored.version_id,
            ),
            dump_bytes=dump.total,
            compression=COMPRESSION,
            encryption=EncryptionRecord.of(context),
            recipients=tuple(map(RecipientRecord.of, recipients)),
            expires_at=expires_after(snapshot.taken_at),
            dag_id=dag_id,
            run_id=run_id,
            head=HeadRecord(bytes=dump.reader.head_size, sha256=dump.reader.head_sha256),
            mappings_without_options=mappings,
            encoding=snapshot.encoding if snapshot.encoding != "UTF8" else "",
        ),
        stored,
        tuple(missing),
    )


class _PgDump(PgDump):
    """A running pg_dump whose output is parsed while the caller reads it."""

    def __init__(
        self, source: DatabaseAddress, snapshot: Snapshot, progress: Progress | None
    ) -> None:
        self.reader = ArchiveReader()
        self._source = source
        self._snapshot = snapshot
        self._progress = progress
        self._names_are_checked = False
        # The database's own encoding: invalid values cannot be converted to another encoding.
        more = [f"--snapshot={snapshot.name}", f"--lock-wait-timeout={LOCK_WAIT}"]
        super().__init__(source, snapshot.encoding, more)

    def pieces(self) -> Iterator[bytes]:
        for piece in super().pieces():
            self.reader.feed(piece)
            if self.reader.head_size and not self._names_are_checked:
                self._require_readable_names()
            if self._progress:
                self._progress("dumped", self.total)
            yield piece

    def _require_readable_names(self) -> None:
        for entry in self.reader.entries:
            if not is_readable(entry.schema + entry.name):
                raise unreadable_name(self._source)
        self._names_are_checked = True

    def finish(self) -> None:
        """Wait for pg_dump, and check that it succeeded and that the archive is complete.

        Raises:
            UsageError: the role may not read all objects, or the server lacks a library.
            ServiceError: pg_dump failed, or the archive is incomplete.
        """
        code = self.wait()
        if code:
            text = self.last_error or f"exit code {code}"
            if "statement timeout" in text:
                raise ServiceError(
                    f"Another session changed a table of {self._source.display_name} when "
                    f"the dump began "
                    "(DROP, ALTER, TRUNCATE or VACUUM FULL).",
                    "No restore point was made. Run the backup when no migration runs.",
                )
            if "permission denied" in text:
                raise UsageError(
                    f"The role may not read all of {self._source.display_name}: {text}.",
                    "Grant the rights: GRANT pg_read_all_data TO the role of the connection. For "
                    "large objects, GRANT SELECT ON LARGE OBJECT, or make the role their owner.",
                )
            if "could not access file" in text:
                raise lacks_library(self._source, text.removeprefix("query failed: ERROR:  "))
            self._require_server()
            kind = DatabaseUnavailable if "connection" in text else ServiceError
            raise kind(
                f"pg_dump of {self._source.display_name} failed: {text}.",
                "No restore point was made. Read the server's log.",
            )
        try:
            self.reader.close()
        except ArchiveError as error:
            raise ServiceError(f"pg_dump of {self._source.display_name}: {error}.") from None

    def _require_server(self) -> None:
        """Raise DatabaseUnavailable if the connection to the server was lost.

        Its message states the cause more clearly than the message of pg_dump.
        """
        try:
            self._snapshot.connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise lost(self._source, error) from None
        except psycopg.Error:
            return


class _Counts:
    """A thread that counts the rows of the dumped tables while pg_dump runs.

    The thread counts in the same snapshot that pg_dump dumps.
    """

    def __init__(self, snapshot: Snapshot, reader: ArchiveReader) -> None:
        self._snapshot = snapshot
        self._reader = reader
        self._rows: dict[int, int] = {}
        self._error: BaseException | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="count", daemon=True)

    def __enter__(self) -> _Counts:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._left.set()
            self._snapshot.connection.cancel_safe(timeout=5)
        self._thread.join()
        if self._error and not kind:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._reader.head_size:
                if self._left.wait(0.05):
                    return
            for entry in self._reader.tables():
                if self._left.is_set():
                    return
                self._rows[entry.dump_id] = self._snapshot.count(entry.schema, entry.name)
        except BaseException as error:  # noqa: BLE001 - raised again in __exit__
            self._error = error

    def tables(self) -> tuple[TableRecord, ...]:
        return tuple(self._record(entry) for entry in self._reader.tables())

    def _record(self, entry: Entry) -> TableRecord:
        digest = self._reader.digests[entry.dump_id]
        return TableRecord(
            schema_name=entry.schema,
            name=entry.name,
            rows=self._rows[entry.dump_id],
            bytes=digest.bytes,
            sha256=digest.sha256,
        )
