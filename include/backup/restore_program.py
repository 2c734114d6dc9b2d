"""Run pg_restore processes, also in parallel, and end each at its first error.

Since version 17, pg_restore begins each of its sessions with ``SET transaction_timeout = 0``, and
has no option to omit it (`_doSetFixedOutputState` in pg_backup_archiver.c). Servers before 17 do
not know the parameter, so ``--exit-on-error`` would end the program there. For such a server
pg_restore runs without ``--exit-on-error``: this module reads its messages, tolerates exactly that
error, and ends the program at the first other error.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from include.backup.archive import entries_with_data
from include.backup.archive_entry import Entry
from include.backup.explain import PROGRAM_ERROR, check_that_refused, explain
from include.backup.manifest import TableRecord
from include.backup.source import ArchiveStream, Source, refused
from include.encryption.crypto import Refused
from include.services.database import DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import MOST_LINES, PIECE, ClientProgram, major_version, pg_version


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Offer bytes as the descriptor of a seekable file that never touches a disk."""
    with os.fdopen(os.memfd_create("parcelseal-head"), "wb") as file:
        file.write(content)  # repeats a write that the system ends early, as Linux does at 2 GiB
        file.flush()
        yield file.fileno()


TIMEOUT_STATEMENT = "SET transaction_timeout = 0;"
SINCE = 17  # version of server and pg_restore that knows the parameter

# The server's part is in its own language; names and statements are not translated.
_TOLERATED = re.compile(r"could not execute query: [^:]*:  [^\n]*\btransaction_timeout\b")
_STATEMENT = f"Command was: {TIMEOUT_STATEMENT}"
_IGNORED = re.compile(r"^pg_restore: warning: errors ignored on restore: (\d+)$")
# Workers of a parallel restore write each message to one pipe in several parts. The word "error: "
# of one worker may be followed by the message of another worker, or by a warning of the server.
# Such a line is skipped; the number of ignored errors decides at the end.
_INTERLEAVED = re.compile(r"pg_restore:|error: |[^:\s]+:  ")


@dataclass(frozen=True)
class RestoreTarget:
    """A database into which pg_restore loads.

    Attributes:
        address: the database.
        knows_timeout: whether every setting of pg_restore's sessions is known to the server.
    """

    address: DatabaseAddress
    knows_timeout: bool = True

    @classmethod
    def of(cls, address: DatabaseAddress) -> RestoreTarget:
        """Read the server's version, and return the target.

        Raises:
            UsageError, ServiceError: the server refuses the login, or cannot be reached.
        """
        with connected(address) as connection:
            server = major_version(connection.info.server_version)
        return cls(address, server >= SINCE or major_version(pg_version("pg_restore")) < SINCE)


class RestoreProcess(ClientProgram):
    """A running pg_restore.

    Args:
        words: options and archive; without ``--exit-on-error``, ``--jobs`` and the database.
        target: the database into which pg_restore loads.
        jobs: number of parallel workers; 1 for an archive that is read as a stream.
        takes_input: whether the archive is fed as a stream.
        pass_fds: descriptors that pg_restore inherits.
    """

    def __init__(
        self,
        words: Sequence[str],
        target: RestoreTarget,
        *,
        jobs: int = 1,
        takes_input: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._target = target
        # With several jobs, pg_restore connects once before and once after its workers.
        self._expected = 0 if target.knows_timeout else 1 if jobs == 1 else 2
        self._ignored = 0
        self._tolerated = ""  # an error line that is tolerated if TIMEOUT_STATEMENT follows
        self._error: list[str] = []
        options = ["--exit-on-error"] if target.knows_timeout else []
        if jobs > 1:
            options.append(f"--jobs={jobs}")
        super().__init__(
            "pg_restore",
            [*options, *words],
            target.address,
            takes_input=takes_input,
            gives_output=False,
            pass_fds=pass_fds,
        )

    def failure(self) -> ServiceError | UsageError | None:
        """Wait for pg_restore's end, and return the error of a failure, without values of rows."""
        code = self.wait()
        if code == 0 and not self._error:
            return None
        if not self._error and self._expected and self._ignored == self._expected:
            return None
        if not self._error and self._ignored:
            self._error = [f"pg_restore: error: {self._ignored} statements failed"]
        output, address = "\n".join(self._error), self._target.address
        return check_that_refused(output, address) or explain(output, address)

    def read_message(self, line: str) -> None:
        """Keep the first error that is not tolerated, and end pg_restore there."""
        tolerated, self._tolerated = self._tolerated, ""
        if self._error:
            if len(self._error) < MOST_LINES:
                self._error.append(line)
        elif tolerated and line != _STATEMENT:
            self._end_at(tolerated, line)
        elif ignored := _IGNORED.match(line):
            self._ignored = int(ignored.group(1))
        elif PROGRAM_ERROR.match(line):
            text = PROGRAM_ERROR.sub("", line)
            if self._expected and _TOLERATED.match(text):
                self._tolerated = line
            elif not (self._expected and _INTERLEAVED.match(text)):
                self._end_at(line)

    def _end_at(self, *lines: str) -> None:
        self._error.extend(lines)
        if self._expected:  # else --exit-on-error ends it. SIGTERM cancels the server's statement
            self.process.terminate()


def load_rows(
    source: Source,
    head: bytes,
    entries: Sequence[Entry],
    target: RestoreTarget,
    options: Sequence[str],
    jobs: int,
) -> None:
    """Load the rows of an archive with several pg_restore processes at once.

    Args:
        source: the restore point.
        head: the verified header and table of contents of its archive.
        entries: the same, decoded.
        target: the database, with the archive's schema.
        options: of pg_restore.
        jobs: processes.

    Raises:
        Refused: the object is not the manifest's; the target holds data that was not verified.
        UsageError, ServiceError: pg_restore failed.
    """
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
    try:
        for thread in threads:
            thread.join()
    except BaseException:  # a signal ends the command
        for loader in loaders:
            loader.cancel()
        raise
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
        target: RestoreTarget,
        options: Sequence[str],
        share: Sequence[int],
    ) -> None:
        self._source, self._target, self._options = source, target, options
        self._head, self._share = head, share
        self._loading: RestoreProcess | None = None
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
        with tempfile.NamedTemporaryFile("w", prefix="parcelseal-list-") as wanted:
            wanted.write("".join(f"{dump_id};\n" for dump_id in self._share))
            wanted.flush()
            words = [*self._options, f"--use-list={wanted.name}"]
            with RestoreProcess(words, self._target, takes_input=True) as loading:
                self._loading = loading
                if self._cancelled:  # another loader failed before this process was started
                    return
                with self._source.opened() as stream:
                    loading.feed(self._pieces(stream))
                    error = loading.failure()
                    if self._cancelled:
                        return
                    if error:
                        on_failure()
                    stream.verify()
            if error:
                raise error

    def _pieces(self, stream: ArchiveStream) -> Iterator[bytes]:
        """Yield the archive. pg_restore ends once its share is loaded, and reads no further."""
        if stream.read_exactly(len(self._head)) != self._head:
            raise refused(self._source.manifest.dump.key, "its table of contents changed")
        yield self._head
        while piece := stream.read(PIECE):
            yield piece

    def cancel(self) -> None:
        """Stop the load, because another loader failed."""
        self._cancelled = True
        if self._loading is not None:
            self._loading.stop()
