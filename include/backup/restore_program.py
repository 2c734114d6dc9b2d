"""Run pg_restore with its files in memory, and end it at its first error.

Since version 17, pg_restore begins each of its sessions with ``SET transaction_timeout = 0``, and
has no option to omit it (`_doSetFixedOutputState` in pg_backup_archiver.c). Servers before 17 do
not know the parameter, so ``--exit-on-error`` would end the program there. For such a server
pg_restore runs without ``--exit-on-error``: this module reads its messages, tolerates exactly that
error, and ends the program at the first other error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from include.backup.explain import PROGRAM_ERROR, check_that_refused, explain
from include.services.client_program import MOST_LINES, ClientProgram
from include.services.database import DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import major_version, pg_version


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
