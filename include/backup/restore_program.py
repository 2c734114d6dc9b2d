"""Run pg_restore, and end it at its first error, on each supported version of the server.

Since version 17, pg_restore begins each of its sessions with ``SET transaction_timeout = 0``, and
has no option to omit it (`_doSetFixedOutputState` in pg_backup_archiver.c). Servers before 17 do
not know the parameter, so ``--exit-on-error`` would end the program there. For such a server
pg_restore runs without ``--exit-on-error``: this module reads its messages, tolerates exactly that
error, and ends the program at the first other error.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from include.backup.check_limits import check_that_refused
from include.backup.explain import PROGRAM_ERROR, explain
from include.services.database import DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import cancel, ending_with_us, pg_version, program
from include.services.server_versions import major_version

TIMEOUT_STATEMENT = "SET transaction_timeout = 0;"
SINCE = 17  # version of server and pg_restore that knows the parameter
MOST_LINES = 200  # of an error, kept for its explanation

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


class RestoreProcess:
    """A running pg_restore.

    Start it and wait for it in one thread, see `ending_with_us`.

    Args:
        words: options and archive; without ``--exit-on-error``, ``--jobs`` and the database.
        target: the database into which pg_restore loads.
        jobs: number of parallel workers; 1 for an archive that is read as a stream.
        stdin: as for `subprocess.Popen`.
        pass_fds: as for `subprocess.Popen`.
    """

    def __init__(
        self,
        words: Sequence[str],
        target: RestoreTarget,
        *,
        jobs: int = 1,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._target = target
        # With several jobs, pg_restore connects once before and once after its workers.
        self._expected = 0 if target.knows_timeout else 1 if jobs == 1 else 2
        self._ignored = 0
        self._error: list[str] = []
        options = [f"--dbname={target.address.public_conninfo()}", "--no-password"]
        if target.knows_timeout:
            options.append("--exit-on-error")
        if jobs > 1:
            options.append(f"--jobs={jobs}")
        self.process = subprocess.Popen(
            ending_with_us([program("pg_restore"), *options, *words]),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env=target.address.environment(),
        )
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def failure(self) -> ServiceError | UsageError | None:
        """Wait for pg_restore's end, and return the error of a failure, without values of rows."""
        try:
            code = self.process.wait()
        except BaseException:  # a signal ends the command: nothing may be loaded any more
            cancel(self.process)
            raise
        self._reader.join()
        if code == 0 and not self._error:
            return None
        if not self._error and self._expected and self._ignored == self._expected:
            return None
        if not self._error and self._ignored:
            self._error = [f"pg_restore: error: {self._ignored} statements failed"]
        output, address = "\n".join(self._error), self._target.address
        return check_that_refused(output, address) or explain(output, address)

    def _read(self, stream: IO[bytes]) -> None:
        tolerated = ""  # an error line that is tolerated if TIMEOUT_STATEMENT follows
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip("\n")
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
                        tolerated = line
                        continue
                    if not (self._expected and _INTERLEAVED.match(text)):
                        self._end_at(line)
                tolerated = ""

    def _end_at(self, *lines: str) -> None:
        self._error.extend(lines)
        if self._expected:  # else --exit-on-error ends it. SIGTERM cancels the server's statement
            self.process.terminate()
