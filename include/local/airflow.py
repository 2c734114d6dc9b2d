"""Airflow on the local profile: its settings, and the process that `up` starts."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from include.local.profile import LocalProfile
from include.services.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from include.local.airflow_api import AirflowApi

ADMIN = "admin"
READY_TIMEOUT = 600  # seconds; a busy machine takes several minutes
TELL_EVERY = 30  # seconds
STOP_TIMEOUT = 6  # seconds; a command ends within 15 s of a signal
FIRST_PORT = 8080
_CLAIMED: list[socket.socket] = []  # open for the life of this process


def settings(
    profile: LocalProfile,
    root: Path,
    database: str,
    port: int | None,
    people: Sequence[str] = (),
) -> dict[str, str]:
    """Return Airflow's settings as environment variables.

    Whatever the environment says already is left as it is, so a production setting always wins.

    Args:
        profile: the local profile.
        root: the checkout.
        database: which of the profile's databases is Airflow's own.
        port: of the API server, None when none is started.
        people: user ids that may log in beside the administrator, to answer human steps.
    """
    import base64

    home = profile.home / "airflow"
    fernet = base64.urlsafe_b64encode(profile.passwords["airflow_fernet"].encode()[:32]).decode()
    wanted = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # Seconds; the first parse after a change of a large pack compiles it.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "360",
        "AIRFLOW__CORE__FERNET_KEY": fernet,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            [f"{ADMIN}:admin", *(f"{one}:user" for one in people)]
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": profile.passwords["airflow_jwt"],
        "AIRFLOW__API__SECRET_KEY": profile.passwords["airflow_jwt"][::-1],
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": profile.sqlalchemy_url(database),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PARCELSEAL_HOME": str(profile.home),
        "PYTHONPATH": str(root),
    }
    if port:
        wanted["AIRFLOW__API__PORT"] = str(port)
        wanted["AIRFLOW__API__HOST"] = "127.0.0.1"
        # Without it, tasks look for the execution API on 8080 and fail without a log.
        wanted["AIRFLOW__API__BASE_URL"] = f"http://127.0.0.1:{port}"
    return {key: os.environ.get(key, value) for key, value in wanted.items()}


def free_port() -> int:
    """Return the first port from 8080 on that is free, and that no other process was given.

    Airflow takes half a minute until it listens; two that are started meanwhile would get the same
    port, and the log-ins of one would be asked of the other.
    """
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        if _claim(port):
            return port
    raise ServiceError("No free port from 8080 to 8279.", "Stop a server and try again.")


def _claim(port: int) -> bool:
    """Hold a port until this process ends, by a socket of Linux's abstract namespace.

    Such a name belongs to no folder: processes with different TMPDIR compete for it, as for the
    port. The system frees it when the process ends, however it ends.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0parcelseal-port-{port}")
    except OSError:  # EADDRINUSE: another process was given the port
        claim.close()
        return False
    _CLAIMED.append(claim)
    return True


def migrate(environment: Mapping[str, str], log: Path) -> None:
    """Bring Airflow's own database to its newest schema; raises ServiceError."""
    with log.open("a") as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            check=False,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        raise ServiceError("Airflow's database could not be migrated.", f"See {log}.")


@dataclass
class Standalone:
    """A running ``airflow standalone`` with its API."""

    process: subprocess.Popen[bytes]
    url: str
    passwords: Mapping[str, str]
    log: Path

    @property
    def password(self) -> str:
        """The administrator's password."""
        return self.passwords[ADMIN]

    @classmethod
    def start(cls, profile: LocalProfile, root: Path, environment: Mapping[str, str]) -> Standalone:
        """Start Airflow in a process group of its own and write its output to a log."""
        home = Path(environment["AIRFLOW_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        users = environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
        passwords = _passwords(
            Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]),
            [ADMIN, *(one.partition(":")[0] for one in users)],
        )
        log = profile.home / "logs" / "airflow.log"
        log.parent.mkdir(exist_ok=True)
        output: IO[bytes] = log.open("ab")
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env={**os.environ, **environment, "PATH": _path()},
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (profile.home / "airflow.pid").write_text(str(process.pid))
        return cls(process, environment["AIRFLOW__API__BASE_URL"], passwords, log)

    def wait_until_ready(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Wait until every part of Airflow reports healthy.

        Args:
            progress: is called every `TELL_EVERY` seconds with the parts that are not ready.

        Raises:
            ServiceError: Airflow ended, or is not ready after `READY_TIMEOUT` seconds.
        """
        begun = told = time.monotonic()
        while waiting := self._not_ready():
            if self.process.poll() is not None:
                raise ServiceError("Airflow stopped while starting.", f"See {self.log}.")
            now = time.monotonic()
            if now - begun >= READY_TIMEOUT:
                raise ServiceError(
                    f"Airflow was not ready after {READY_TIMEOUT} s: no answer from {waiting}.",
                    "The machine may be busy: run the command again, it goes on where it was. "
                    f"Else see {self.log}.",
                )
            if now - told >= TELL_EVERY:
                told = now
                progress(f"waiting for Airflow: {waiting}")
            time.sleep(1)

    def _not_ready(self) -> str:
        """Name the parts of Airflow that do not report healthy; empty when all do."""
        import requests  # loads slowly, and `run` needs no server

        try:
            health = requests.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (requests.RequestException, ValueError):
            return "api_server"
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return ", ".join(
            part for part in parts if (health.get(part) or {}).get("status") != "healthy"
        )

    def api(self) -> AirflowApi:
        """Log in to the REST API as the administrator."""
        return self.api_as(ADMIN)

    def api_as(self, user: str) -> AirflowApi:
        """Log in to the REST API as a person of the sample; raises ServiceError."""
        from include.local.airflow_api import AirflowApi

        if user not in self.passwords:
            raise ServiceError(
                f"{user} has no password in this Airflow.", "Answer the step in Airflow yourself."
            )
        return AirflowApi.login(self.url, user, self.passwords[user], str(self.log))

    def stop(self) -> None:
        """Stop Airflow and everything it started."""
        stop_tree(self.process.pid)
        self.process.wait()


def stop_tree(pid: int) -> None:
    """End the first process of a session with all others of it: politely, then for good."""
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = [*root.children(recursive=True), root]
    for one in family:
        _signal(one, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT)
    for one in [*alive, *_session(pid)]:  # what was started since the look at the children, too
        _signal(one, signal.SIGKILL)


def _session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


@contextmanager
def hold(home: Path) -> Iterator[None]:
    """Hold a home for one `up`; the system lets go of it when the process ends, however.

    Raises:
        UsageError: another `up` of this home is running.
    """
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                f"An `up` of {home} is running already ({lock.read().strip()}).",
                "Use it, stop it, or set PARCELSEAL_HOME to another folder.",
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


def stop_orphan(profile: LocalProfile) -> None:
    """Stop an Airflow whose `up` was killed, before its server is stopped under it."""
    if not (profile.home / "airflow.pid").exists():
        return
    try:
        with hold(profile.home):
            stop_left_over(profile)
    except UsageError:
        return  # its `up` is alive


def stop_left_over(profile: LocalProfile) -> None:
    """Stop an Airflow that an earlier `up` of this home left behind when it was killed."""
    mark = profile.home / "airflow.pid"
    if not mark.exists():
        return
    pid = int(mark.read_text() or 0)
    mark.unlink()
    if pid and psutil.pid_exists(pid):
        try:
            words = psutil.Process(pid).cmdline()
        except psutil.Error:
            return
        if "standalone" in words:
            stop_tree(pid)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _path() -> str:
    """Return PATH with our own programs first: standalone starts ``airflow`` by its name."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _passwords(path: Path, users: Sequence[str]) -> dict[str, str]:
    """Return the users' passwords, each made on first use."""
    import secrets

    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    fresh = {one: secrets.token_urlsafe(12) for one in users if one not in kept}
    if fresh:
        kept |= fresh
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(kept, file)
    return kept
