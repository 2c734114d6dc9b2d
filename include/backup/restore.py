"""Restore a database: fetch, verify, decrypt and load in parallel, without a clear file on disk.

pg_restore can only work in parallel on a file it can seek in, and there is no such file here. The
archive's head (schema, no rows) is kept in memory for the parts before and after the data, where
pg_restore runs its own jobs. The data is loaded by several pg_restore processes at once, each fed
by a stream of its own and told which tables are its share
(docs/decisions/0005-parallel-restore.md). Each stream is verified again, because the object may
change after it was checked (docs/decisions/0031-each-reader-verifies-what-it-reads.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.backup.archive import ArchiveReader, Entry, entries_with_data
from include.backup.explain import explain
from include.backup.left_out import left_out
from include.backup.manifest import Manifest, TableRecord
from include.backup.row_security import policies_lifted
from include.backup.snapshot import ALL_TABLES
from include.backup.verified import NEXT_STEP, ArchiveStream, open_archive, refused
from include.encryption.crypto import Readable, Refused
from include.encryption.recipients import OpeningKey
from include.encryption.stream import PIECE, PIPE_SIZE
from include.services.database import DatabaseAddress, connected
from include.services.errors import ControlFailed, ParcelSealError, ServiceError, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    StoredObject,
)
from include.services.programs import ending_with_us, program

# Which database on which start of which server, whatever name or address led to it.
WHO_AM_I = (
    "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
)
LARGE_OBJECTS = {"BLOBS", "BLOB METADATA", "BLOB"}


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Attributes:
        seconds: from the first byte fetched to the last index built.
        differences: tables whose row count is not the manifest's; empty when all fit.
        left_out: labels of what was not brought back, see `left_out`.
    """

    tables: int
    rows: int
    seconds: float
    differences: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """An encrypted restore point that can be opened as often as needed."""

    store: ObjectStore
    manifest: Manifest
    key: OpeningKey

    def check(self) -> None:
        """Verify that the stored object is the manifest's, before the target is changed.

        Raises:
            Refused: missing, damaged or exchanged; names the object.
        """
        dump = self.manifest.dump
        expected = StoredObject(
            dump.key,
            dump.size,
            self.manifest.taken_at,
            sha256=dump.sha256,
            checksum=dump.checksum,
            version_id=dump.version_id,
        )
        try:
            self.store.verify(expected)
        except (ObjectDamaged, ObjectMissing) as error:
            raise Refused(
                f"Restore point {self.manifest.id} is refused: {error.message}", NEXT_STEP
            ) from None

    @contextmanager
    def archive(self) -> Iterator[Readable]:
        """Open the clear pg_dump archive as a stream, and verify the object that it comes from.

        Leaving the block without an error reads the object to its end.

        Raises:
            Refused: it is not the object of the manifest; nothing that was read may be used.
        """
        with self.opened() as stream:
            yield stream
            stream.verify()

    def opened(self) -> AbstractContextManager[ArchiveStream]:
        """Open the clear pg_dump archive as a stream that the caller verifies."""
        return open_archive(self.store, self.manifest, self.key)

    def head(self) -> tuple[bytes, list[Entry]]:
        """Return the archive's header and table of contents, as bytes and decoded.

        The manifest's digest of the head verifies it. A manifest of an earlier version has none;
        then the whole object is read.

        Raises:
            Refused: it is not the archive of the manifest.
        """
        manifest, digest = self.manifest, self.manifest.head
        with self.opened() as stream:
            if digest:
                reader, head = _parsed(iter([stream.read_exactly(digest.bytes)]), manifest)
                if (reader.head_size, reader.head_sha256) != (digest.bytes, digest.sha256):
                    raise refused(manifest.dump.key, "its table of contents differs")
            else:
                reader, head = _parsed(iter(lambda: stream.read(PIECE), b""), manifest)
                stream.verify()
        if reader.schema_sha256() != manifest.schema_sha256:
            raise refused(manifest.dump.key, "its schema differs")
        return head, reader.entries


def _parsed(pieces: Iterable[bytes], manifest: Manifest) -> tuple[ArchiveReader, bytes]:
    """Read an archive up to the end of its table of contents; raises Refused."""
    reader, head = ArchiveReader(), bytearray()
    tables = sum(table.bytes for table in manifest.tables)
    longest = manifest.dump_bytes - tables - manifest.large_objects.bytes
    for piece in pieces:
        head += piece
        try:
            reader.feed(piece)
        except ValueError as error:  # ArchiveError, or a field that should be a number
            raise refused(manifest.dump.key, str(error)) from None
        if reader.head_size:
            return reader, bytes(head[: reader.head_size])
        if len(head) > longest:
            break
    raise refused(manifest.dump.key, "it has no complete table of contents")


def restore(
    source: Source,
    target: DatabaseAddress,
    *,
    jobs: int = 2,
    owners: bool = False,
    allow_content: bool = False,
    progress: Callable[[str], None] | None = None,
    prepare: Callable[[bytes, Sequence[Entry]], None] | None = None,
) -> Restored:
    """Load a restore point into a database and compare its row counts with the manifest.

    Everything belongs to the role of the target then, and no other role has a right on it:
    `include.backup.access` sets owners and grants once the erasures were replayed.

    Args:
        source: checked before the target is changed.
        target: an existing database.
        jobs: loaders and index builders at once.
        owners: the caller sets owners and grants afterwards; `Restored.left_out` depends on it.
        allow_content: load into a database that already has tables.
        progress: is called with the name of each step.
        prepare: is called with the archive's head, as bytes and decoded, when the object was
            checked and nothing is loaded yet; its error ends the restore there.

    Raises:
        UsageError: the target is not empty, an extension or role is missing there.
        Refused: the key does not open the object, or the object is not the manifest's. Where it
            changed during the load, the target holds unverified rows, and the action says so.
        ServiceError: database or store failed.
    """
    tell = progress or (lambda _: None)
    if not target.name:
        raise UsageError("The target names no database.", "Write postgresql://.../DATABASE.")
    if not allow_content:
        refuse_content(target)
    started = time.monotonic()
    tell("checking the object against the manifest")
    source.check()
    head, entries = source.head()
    if prepare:
        prepare(head, entries)
    # Tablespaces belong to the server, and the target's need not have the same.
    options = ["--exit-on-error", "--no-password", f"--dbname={target.public_conninfo()}"]
    options += ["--no-tablespaces", "--no-owner", "--no-privileges"]
    options += ["--no-publications", "--no-subscriptions"]
    with _in_memory(head) as archive, _never_say_drop(when=allow_content):
        tell("creating the schema")
        _pg_restore([*options, "--section=pre-data"], archive, target)
        created = {(entry.schema, entry.name) for entry in entries if entry.kind == "TABLE"}
        with policies_lifted(target, created):
            tell(f"loading {len(source.manifest.tables)} tables")
            _load(source, head, entries, target, options, jobs)
            tell("building indexes and constraints")
            _pg_restore([*options, f"--jobs={jobs}", "--section=post-data"], archive, target)
            seconds = time.monotonic() - started
            tell("counting rows")
            counted = count_rows(target, source.manifest.tables)
    return Restored(
        tables=len(counted),
        rows=sum(counted.values()),
        seconds=seconds,
        differences=tuple(
            table.label
            for table in source.manifest.tables
            if counted.get(table.label) != table.rows
        ),
        left_out=left_out(entries, source.manifest, owners=owners),
    )


def refuse_live(target: DatabaseAddress, live: DatabaseAddress) -> None:
    """Raise UsageError when the target is the live database itself.

    A live database that cannot be reached is not the target, which can.
    """
    try:
        with live.connect() as connection:
            itself = connection.execute(WHO_AM_I).fetchone()
    except ParcelSealError:
        return
    with connected(target) as connection:
        if connection.execute(WHO_AM_I).fetchone() == itself:
            raise UsageError(
                f"The target {target.place} is the live database.",
                "Restore into a new database; move the people over when it is right.",
            )


def refuse_content(target: DatabaseAddress) -> None:
    """Raise UsageError when the target has tables."""
    with connected(target) as connection:
        tables = connection.execute(ALL_TABLES).fetchall()
    if tables:
        raise UsageError(
            f"The target {target.place} is not empty: it has {len(tables)} tables.",
            "Create a new database for the restore, or say --into-existing to load beside them.",
        )


def count_rows(target: DatabaseAddress, tables: Sequence[TableRecord]) -> dict[str, int]:
    """Count the rows of the manifest's tables in the target; a table it has not is left out."""
    counted = {}
    with connected(target) as connection:
        for table in tables:
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(
                sql.Identifier(table.schema_name, table.name)
            )
            try:
                row = connection.execute(query).fetchone()
            except psycopg.errors.UndefinedTable:
                connection.rollback()
                continue
            counted[table.label] = int(row[0]) if row else 0
    return counted


def require_match(restored: Restored, point: str) -> None:
    """Raise ControlFailed when a restore does not fit its manifest."""
    if restored.differences:
        raise ControlFailed(
            f"Restore point {point} does not match its manifest in: "
            f"{', '.join(restored.differences[:10])}.",
            "Do not use this database; restore another restore point.",
        )


def _load(
    source: Source,
    head: bytes,
    entries: Sequence[Entry],
    target: DatabaseAddress,
    options: Sequence[str],
    jobs: int,
) -> None:
    shares = [share for share in share_out(entries, source.manifest.tables, jobs) if share]
    errors: list[BaseException] = []
    loaders = [_Loader(source, head, target, options, share) for share in shares]

    def cancel_others(loader: _Loader) -> None:
        for other in loaders:
            if other is not loader:
                other.cancel()

    def work(loader: _Loader) -> None:
        try:
            loader.run(on_failure=lambda: cancel_others(loader))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the calling thread
            errors.append(error)
            cancel_others(loader)

    threads = [threading.Thread(target=work, args=(loader,), daemon=True) for loader in loaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if isinstance(error, Refused):
            raise Refused(
                error.message,
                "The target holds data that was not verified: drop it. Use another restore point "
                "and raise an incident.",
            ) from None
    if errors:
        raise errors[0]


def share_out(
    entries: Sequence[Entry], tables: Sequence[TableRecord], jobs: int
) -> list[list[int]]:
    """Share the archive's data entries among loaders, largest first to the least loaded.

    Sequence values and large objects, with their comments and grants, belong to the first loader.
    Each share is in archive order, because a loader reads its stream only forward.
    """
    sizes = {(table.schema_name, table.name): table.bytes for table in tables}
    shares: list[list[int]] = [[] for _ in range(max(1, jobs))]
    loads = [0] * len(shares)
    data = entries_with_data(entries)
    order = {entry.dump_id: index for index, entry in enumerate(entries)}
    for entry in sorted(data, key=lambda entry: -sizes.get((entry.schema, entry.name), 0)):
        lightest = loads.index(min(loads)) if entry.kind == "TABLE DATA" else 0
        loads[lightest] += sizes.get((entry.schema, entry.name), 0) + 1
        shares[lightest].append(entry.dump_id)
    return [sorted(share, key=order.__getitem__) for share in shares]


class _Loader:
    """Run a pg_restore process that is fed by its own stream of the archive.

    Args:
        head: the verified header and table of contents. pg_restore executes what it says, so its
            stream must begin with the same bytes.
        share: dump ids that it loads, in the archive's order.
    """

    def __init__(
        self,
        source: Source,
        head: bytes,
        target: DatabaseAddress,
        options: Sequence[str],
        share: Sequence[int],
    ) -> None:
        self._source, self._target, self._options = source, target, options
        self._head, self._share = head, share
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self, on_failure: Callable[[], None]) -> None:
        """Load the share, then verify all that was read.

        Args:
            on_failure: is called as soon as pg_restore failed. The stream is verified all the same,
                because forged rows may be the reason.

        Raises:
            Refused: the object is not the manifest's; the target holds forged rows.
            UsageError, ServiceError: pg_restore failed.
        """
        with (
            tempfile.NamedTemporaryFile("w", prefix="parcelseal-list-") as wanted,
            tempfile.TemporaryFile() as output,
        ):
            wanted.write("".join(f"{dump_id};\n" for dump_id in self._share))
            wanted.flush()
            self._process = subprocess.Popen(
                ending_with_us(
                    [program("pg_restore"), *self._options, f"--use-list={wanted.name}"]
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env=self._target.environment(),
            )
            try:
                if self._cancelled:  # another loader failed before this process was started
                    return
                with self._source.opened() as stream:
                    self._feed(stream)
                    code = self._process.wait()
                    if self._cancelled:
                        return
                    if code:
                        on_failure()
                    stream.verify()
            finally:
                self._end(self._process)
            if code:
                output.seek(0)
                raise explain(output.read().decode("utf-8", "replace"), self._target)

    def _feed(self, stream: ArchiveStream) -> None:
        assert self._process is not None
        pipe = self._process.stdin
        assert pipe is not None
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        if stream.read_exactly(len(self._head)) != self._head:
            raise refused(self._source.manifest.dump.key, "its table of contents changed")
        # pg_restore leaves once its share is loaded; the rest of the stream is not for it.
        with contextlib.suppress(BrokenPipeError):
            pipe.write(self._head)
            while piece := stream.read(PIECE):
                pipe.write(piece)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()

    def cancel(self) -> None:
        """Stop the load, because another loader failed."""
        self._cancelled = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _pg_restore(words: Sequence[str], archive: int, target: DatabaseAddress) -> None:
    # Its own descriptor: Airflow closes a task's /proc/PID/fd to everybody but root.
    done = subprocess.run(
        ending_with_us([program("pg_restore"), *words, f"/proc/self/fd/{archive}"]),
        check=False,
        pass_fds=(archive,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=target.environment(),
    )
    if done.returncode:
        raise explain(done.stderr.decode("utf-8", "replace"), target)


@contextmanager
def _never_say_drop(*, when: bool) -> Iterator[None]:
    """Change the action of an error: a target that had content must not be dropped."""
    try:
        yield
    except ServiceError as error:
        if when:
            error.action = "The target had content before, and may hold part of the backup now."
        raise
    except Refused as error:
        if when:
            error.action = (
                "The target had content before, and holds data of the backup that was not "
                "verified: remove that. Use another restore point and raise an incident."
            )
        raise


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """Offer bytes as the descriptor of a seekable file that never touches a disk."""
    descriptor = os.memfd_create("parcelseal-head")
    try:
        os.write(descriptor, content)
        yield descriptor
    finally:
        os.close(descriptor)
