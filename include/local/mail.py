"""The local profile's mail server: takes every mail and writes it to a file, sends none.

It is a process of its own that all commands of a home share, as they share PostgreSQL. It ends with
the last of them; where that one was killed, it notices by itself.
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
LOOK_EVERY = 2  # seconds; whether anybody uses it still
_UNSAFE = re.compile(r"[^A-Za-z0-9@._-]+")

# One shared lock per folder and process, held for the process's life whoever made the handle.
_USES: dict[Path, IO[str]] = {}
_STARTED: dict[Path, subprocess.Popen[bytes]] = {}  # by this process


@dataclass(frozen=True)
class LocalMail:
    """The mail server of one home.

    Args:
        folder: where mails are written; it also has the server's port and locks.
    """

    folder: Path

    @property
    def mails(self) -> list[Path]:
        """What was taken, the oldest first."""
        return sorted(self.folder.glob("*.eml"))

    def connection(self) -> ConnectionSpec | None:
        """The connection that stands in for ``mail``; None while no server was started here."""
        port = self._port()
        if port is None:
            return None
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": SENDER}
        return ConnectionSpec("mail", "smtp", HOST, port, extra=extra)

    def start(self) -> None:
        """Start the server where none answers, and count this process as a user.

        Raises:
            ServiceError: it did not start; names the log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.folder not in _USES:
            _USES[self.folder] = (self.folder / "in-use.lock").open("a")
            fcntl.flock(_USES[self.folder], fcntl.LOCK_SH)
        with self._starting():
            if not self.running():
                self._start()

    def running(self) -> bool:
        """Whether it answers."""
        port = self._port()
        if port is None or self._pid() is None:
            return False
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex((HOST, port)) == 0

    def stop_if_unused(self) -> None:
        """Stop it when no other living process counts as a user."""
        if self.folder in _USES:
            _USES.pop(self.folder).close()
        if not self.folder.exists():
            return
        with self._starting(), (self.folder / "in-use.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            pid = self._pid()
            self._forget()
            if pid is not None:
                _end(pid)
            if started := _STARTED.pop(self.folder, None):
                started.wait(STOP_TIMEOUT)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        with (self.folder / "start.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        self._forget()
        if left := _STARTED.pop(self.folder, None):
            left.poll()  # one that was killed
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
        while not self.running():
            if process.poll() is not None or time.monotonic() > end:
                raise ServiceError("The local mail server did not start.", f"Look into {log}.")
            time.sleep(0.02)

    def _port(self) -> int | None:
        return _number(self.folder / "port")

    def _pid(self) -> int | None:
        """Its process, while that is alive and still the server of this folder."""
        pid = _number(self.folder / "server.pid")
        if pid is None:
            return None
        try:
            words = psutil.Process(pid).cmdline()
        except psutil.Error:
            return None
        return pid if str(self.folder) in words else None

    def _forget(self) -> None:
        for name in ("port", "server.pid"):
            (self.folder / name).unlink(missing_ok=True)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _end(pid: int) -> None:
    """End the server: politely, then for good."""
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
class Taking:
    """Writes every mail to a file of its own, for us alone."""

    folder: Path
    clock: Clock

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a mail; aiosmtpd calls it."""
        del server, session
        content = envelope.content
        assert isinstance(content, bytes)
        # the old parser takes any header for what it is; the other one fails over some
        parsed = email.message_from_bytes(content, policy=compat32)
        named = _UNSAFE.sub("", str(parsed["Message-ID"] or "")) or "without-id"
        moment = self.clock.now().strftime("%Y%m%dT%H%M%S.%fZ")
        path = self.folder / f"{moment}-{named[:150]}.eml"
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
    taking = Taking(mail.folder, SystemClock())
    server = await loop.create_server(lambda: SMTP(taking, enable_SMTPUTF8=True), HOST, 0)
    _write(mail.folder / "server.pid", os.getpid())
    _write(mail.folder / "port", server.sockets[0].getsockname()[1])
    while not ended.is_set() and not _unused(mail.folder):
        try:
            await asyncio.wait_for(ended.wait(), LOOK_EVERY)
        except TimeoutError:
            continue
    server.close()


def _write(path: Path, number: int) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(str(number))
    partial.replace(path)


def _unused(folder: Path) -> bool:
    """Whether nobody uses the server; then nobody finds it any more either."""
    try:
        with (folder / "start.lock").open("a") as start, (folder / "in-use.lock").open("a") as used:
            fcntl.flock(start, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "port").unlink(missing_ok=True)
    except BlockingIOError:
        return False  # somebody uses it, or is about to
    except FileNotFoundError:
        return True  # the home is gone
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command that uses it
    asyncio.run(_serve(LocalMail(Path(sys.argv[1]))))
