"""The local profile's mail server, which writes every mail to a file and delivers none.

The mail server is a separate process that all commands with the same home folder share. The last of
these commands stops it. If that command was killed, the mail server notices that no process uses
it, and ends.
"""

from __future__ import annotations

import asyncio
import email
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.policy import compat32
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from include.services.clock import Clock, SystemClock
from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
SENDER = "ParcelSeal <parcelseal@courier.example>"
START_TIMEOUT, STOP_TIMEOUT = 30, 10  # seconds
USE_CHECK_INTERVAL = 2  # seconds between checks whether a process still uses the server
_UNSAFE = re.compile(r"[^A-Za-z0-9@._-]+")

# A process has one shared lock per folder, for all of its LocalMail objects, until it ends.
_USES: dict[Path, IO[str]] = {}
_STARTED: dict[Path, subprocess.Popen[bytes]] = {}  # servers that this process started


@dataclass(frozen=True)
class LocalMail:
    """The mail server of a home folder.

    Args:
        folder: folder that contains the mails, the server's port number and the lock files.
    """

    folder: Path

    @property
    def mails(self) -> list[Path]:
        """The files of the received mails, oldest first."""
        return sorted(self.folder.glob("*.eml"))

    def connection(self) -> ConnectionSpec | None:
        """Return the local connection ``mail``, or None if the server was not started."""
        port = self._port()
        if port is None:
            return None
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": SENDER}
        return ConnectionSpec("mail", "smtp", HOST, port, extra=extra)

    def start(self) -> None:
        """Start the mail server if it is not running, and register that this process uses it.

        Raises:
            ServiceError: the server did not start. The error names the log file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.folder not in _USES:
            _USES[self.folder] = (self.folder / "in-use.lock").open("a")
            fcntl.flock(_USES[self.folder], fcntl.LOCK_SH)
        with self._start_lock():
            if not self.is_running():
                self._start()

    def is_running(self) -> bool:
        """Return whether the server accepts connections."""
        port = self._port()
        if port is None or self._pid() is None:
            return False
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex((HOST, port)) == 0

    def stop_if_unused(self) -> None:
        """Stop the server if no other running process uses it."""
        if self.folder in _USES:
            _USES.pop(self.folder).close()
        if not self.folder.exists():
            return
        with self._start_lock(), (self.folder / "in-use.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            pid = self._pid()
            self._delete_state_files()
            if pid is not None:
                _end(pid)
            if started := _STARTED.pop(self.folder, None):
                started.wait(STOP_TIMEOUT)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        with (self.folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        self._delete_state_files()
        if killed := _STARTED.pop(self.folder, None):
            killed.poll()  # collects the exit status, so that no zombie process remains
        log = self.folder / "server.log"
        with log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "include.local.mail", str(self.folder)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _STARTED[self.folder] = process
        end = time.monotonic() + START_TIMEOUT
        while not self.is_running():
            if process.poll() is not None or time.monotonic() > end:
                raise ServiceError("The local mail server did not start.", f"Look into {log}.")
            time.sleep(0.02)

    def _port(self) -> int | None:
        return _number(self.folder / "port")

    def _pid(self) -> int | None:
        """Return the process id of the mail server, or None if the server is not running."""
        pid = _number(self.folder / "server.pid")
        if pid is None:
            return None
        try:
            arguments = psutil.Process(pid).cmdline()
        except psutil.Error:
            return None
        return pid if str(self.folder) in arguments else None

    def _delete_state_files(self) -> None:
        for name in ("port", "server.pid"):
            (self.folder / name).unlink(missing_ok=True)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _end(pid: int) -> None:
    """End the mail server: first with SIGTERM, then with SIGKILL."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(STOP_TIMEOUT)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT)


@dataclass(frozen=True)
class MailWriter:
    """Writes every received mail to a new file, which only the current user can read."""

    folder: Path
    clock: Clock

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Write a mail to a file, and return the SMTP response. aiosmtpd calls this method."""
        del server, session
        content = envelope.content
        assert isinstance(content, bytes)
        # the compat32 parser accepts any header; the newer parser fails on some
        parsed = email.message_from_bytes(content, policy=compat32)
        message_id = _UNSAFE.sub("", str(parsed["Message-ID"] or "")) or "without-id"
        moment = self.clock.now().strftime("%Y%m%dT%H%M%S.%fZ")
        path = self.folder / f"{moment}-{message_id[:150]}.eml"
        partial = path.with_suffix(".partial")
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(content)
            partial.replace(path)
        except OSError:
            return "452 4.3.1 the mail cannot be written"
        return "250 2.0.0 OK"


async def _serve(mail: LocalMail) -> None:
    from aiosmtpd.smtp import SMTP

    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    writer = MailWriter(mail.folder, SystemClock())
    server = await loop.create_server(lambda: SMTP(writer, enable_SMTPUTF8=True), HOST, 0)
    _write(mail.folder / "server.pid", os.getpid())
    _write(mail.folder / "port", server.sockets[0].getsockname()[1])
    while not ended.is_set() and not _is_unused(mail.folder):
        try:
            await asyncio.wait_for(ended.wait(), USE_CHECK_INTERVAL)
        except TimeoutError:
            continue
    server.close()


def _write(path: Path, number: int) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(str(number))
    partial.replace(path)


def _is_unused(folder: Path) -> bool:
    """Return whether no process uses the mail server.

    If the result is True, the file with the server's port number was deleted, so that no process
    connects to the server before it ends.
    """
    try:
        with (folder / "start.lock").open("a") as start, (folder / "in-use.lock").open("a") as use:
            fcntl.flock(start, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "port").unlink(missing_ok=True)
    except BlockingIOError:
        return False  # a process uses the server, or is starting it
    except FileNotFoundError:
        return True  # the home was deleted
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the command that uses it
    asyncio.run(_serve(LocalMail(Path(sys.argv[1]))))
