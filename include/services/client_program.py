"""Run psql, pg_dump or pg_restore as one end of a stream.

The program gets its password by its environment. Its messages are read in a thread, so that they
never block it; the first of them are kept, and what the server says of rows leaves here as an
SQLSTATE only.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Self

from include.services.database import DatabaseAddress
from include.services.programs import cancel, ending_with_us, program

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
