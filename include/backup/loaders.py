"""Load a restore point's rows in parallel: pg_restore processes, each fed by its own stream."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from include.backup.archive import entries_with_data
from include.backup.archive_entry import Entry
from include.backup.manifest import TableRecord
from include.backup.restore_program import RestoreProcess, RestoreTarget
from include.backup.source import ArchiveStream, Source, refused
from include.encryption.crypto import Refused
from include.services.client_program import PIECE


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
