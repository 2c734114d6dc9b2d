"""Run pg_restore processes, also in parallel, and end each process at its first error.

Since version 17, pg_restore begins each of its sessions with ``SET transaction_timeout = 0``, and
has no option to omit this statement (`_doSetFixedOutputState` in pg_backup_archiver.c). Servers
before version 17 do not know the parameter, so pg_restore with ``--exit-on-error`` would end at
this statement. For such a server, pg_restore runs without ``--exit-on-error``. This module then
reads the messages of pg_restore. It tolerates the error of this statement, and ends pg_restore at
any other error.
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
from include.encryption.crypto import ContentRefused
from include.services.database import DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import MOST_LINES, PIECE, ClientProgram, major_version, pg_version


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Create a file in memory with the given content, and yield its file descriptor."""
    with os.fdopen(os.memfd_create("parcelseal-head"), "wb") as file:
        file.write(content)  # unlike os.write, it writes more than 2 GiB
        file.flush()
        yield file.fileno()


TIMEOUT_STATEMENT = "SET transaction_timeout = 0;"
SINCE = 17  # first version of server and pg_restore with this parameter

# The server's message is in the language of the server. Names and statements are not translated.
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
        address: address of the database.
        knows_timeout: whether pg_restore can load without an error about the parameter
            ``transaction_timeout``. False if pg_restore sets this parameter and the server does not
            know it.
    """

    address: DatabaseAddress
    knows_timeout: bool = True

    @classmethod
    def of(cls, address: DatabaseAddress) -> RestoreTarget:
        """Connect to the database to read the server's version, and return the target.

        Raises:
            UsageError, ServiceError: the server refuses the login, or cannot be reached.
        """
        with connected(address) as connection:
            server = major_version(connection.info.server_version)
        return cls(address, server >= SINCE or major_version(pg_version("pg_restore")) < SINCE)


class RestoreProcess(ClientProgram):
    """A running pg_restore.

    Args:
        words: command-line arguments, without ``--exit-on-error``, ``--jobs`` and the database.
        target: database into which pg_restore loads.
        jobs: number of parallel workers; 1 for an archive that is read as a stream.
        takes_input: whether the archive is passed to pg_restore as a stream.
        pass_fds: file descriptors that pg_restore inherits.
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
        """Wait until pg_restore ends, and return its error, or None if it succeeded.

        The error contains no values of rows.
        """
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
        """Read one line of pg_restore's messages, and end pg_restore if the line is an error.

        Errors that this module tolerates do not end pg_restore.

        Args:
            line: line that pg_restore wrote to stderr.
        """
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
    """Load the rows of an archive with several concurrent pg_restore processes.

    Args:
        source: restore point.
        head: verified header and table of contents of the archive.
        entries: decoded table of contents.
        target: database in which the tables of the archive already exist.
        options: options of pg_restore.
        jobs: number of processes.

    Raises:
        ContentRefused: the stored backup differs from its manifest. In this case, the target
            already contains data that was not verified.
        UsageError, ServiceError: pg_restore failed.
    """
    shares = [share for share in distribute_entries(entries, source.manifest.tables, jobs) if share]
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
        if isinstance(error, ContentRefused):
            raise ContentRefused(
                error.message,
                "The target has data that was not verified: drop it. Use another restore point, "
                "and open an incident.",
            ) from None
    if errors:
        raise errors[0]


def distribute_entries(
    entries: Sequence[Entry], tables: Sequence[TableRecord], jobs: int
) -> list[list[int]]:
    """Distribute an archive's data over processes, so that each loads a similar amount of data.

    The first process also loads all sequence values and large objects, with their comments and
    grants.

    Args:
        entries: entries of the archive's table of contents.
        tables: tables of the manifest with their sizes.
        jobs: number of processes.

    Returns:
        One list of dump ids for each process. Each list is in the order of the archive, because a
        process can only read forward.
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
    """A pg_restore process that loads some of the entries from its own stream of the archive.

    Args:
        source: restore point.
        head: verified header and table of contents, as bytes. The stream must begin with the same
            bytes, because pg_restore executes the statements of the table of contents.
        target: database into which pg_restore loads.
        options: options of pg_restore.
        share: dump ids of the entries that the process loads, in the order of the archive.
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
        """Load this process's share of the archive, then verify the whole encrypted dump.

        Several processes load one archive in parallel. Each of them loads other entries.

        Args:
            on_failure: function that is called as soon as pg_restore has failed. The dump is
                verified even then, because forged rows may be the cause of the failure.

        Raises:
            ContentRefused: the dump differs from the manifest. In this case, the target contains
                rows that may be forged.
            UsageError, ServiceError: pg_restore failed.
        """
        with tempfile.NamedTemporaryFile("w", prefix="parcelseal-list-") as list_file:
            list_file.write("".join(f"{dump_id};\n" for dump_id in self._share))
            list_file.flush()
            words = [*self._options, f"--use-list={list_file.name}"]
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
        """Yield the bytes of the archive for pg_restore.

        Args:
            stream: decrypted archive.

        Raises:
            ContentRefused: the archive does not begin with the verified head.
        """
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
