"""Airflow in the local profile: its settings, and the process that the command `up` starts."""

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
PROGRESS_INTERVAL = 30  # seconds
STOP_TIMEOUT = 6  # seconds; after a signal, a command has to end within 15 s
FIRST_PORT = 8080
_CLAIMED: list[socket.socket] = []  # open for the life of this process


def settings(
    profile: LocalProfile,
    root: Path,
    database: str,
    port: int | None,
    people: Sequence[str] = (),
) -> dict[str, str]:
    """Return the settings of a local Airflow as environment variables.

    A variable that is already set in this process keeps its value, so a production setting always
    takes precedence.

    Args:
        profile: the local profile.
        root: folder of the checked-out repository.
        database: name of the local database in which Airflow stores its own metadata.
        port: port of the API server, or None if no server is started.
        people: ids of the users who may log in to answer required actions, besides the
            administrator.
    """
    import base64

    home = profile.home / "airflow"
    fernet = base64.urlsafe_b64encode(profile.passwords["airflow_fernet"].encode()[:32]).decode()
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        # Seconds. After a change of a large policy pack, the first parse compiles the pack.
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "360",
        "AIRFLOW__CORE__FERNET_KEY": fernet,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            [f"{ADMIN}:admin", *(f"{person}:user" for person in people)]
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
        variables["AIRFLOW__API__PORT"] = str(port)
        variables["AIRFLOW__API__HOST"] = "127.0.0.1"
        # Without it, tasks look for the execution API on 8080 and fail without a log.
        variables["AIRFLOW__API__BASE_URL"] = f"http://127.0.0.1:{port}"
    return {key: os.environ.get(key, value) for key, value in variables.items()}


def free_port() -> int:
    """Return the first port from 8080 on that is free and that no other process has claimed.

    After its start, Airflow takes half a minute until it listens. Without a claim, two instances of
    Airflow that start at the same time would get the same port, and log-ins would reach the wrong
    instance.
    """
    for port in range(FIRST_PORT, FIRST_PORT + 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        if _claim(port):
            return port
    raise ServiceError(
        "No port from 8080 to 8279 is free.",
        "Stop a program that uses one of these ports, then run the command again.",
    )


def _claim(port: int) -> bool:
    """Claim a port until this process ends, and return whether the claim succeeded.

    The claim is a socket in Linux's abstract namespace. The name of the socket is not a file.
    Therefore processes whose TMPDIR differs see the same claims. The kernel releases the name when
    the process ends, even if the process is killed.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0parcelseal-port-{port}")
    except OSError:  # EADDRINUSE: another process has claimed the port
        claim.close()
        return False
    _CLAIMED.append(claim)
    return True


def migrate(environment: Mapping[str, str], log: Path) -> None:
    """Migrate Airflow's own database to its newest schema.

    Args:
        environment: result of `settings`.
        log: file to which the output of the migration is written.

    Raises:
        ServiceError: the migration failed.
    """
    with log.open("a") as output:
        completed = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            check=False,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if completed.returncode:
        raise ServiceError("Airflow's database could not be migrated.", f"See {log}.")


@dataclass
class Standalone:
    """A running process of ``airflow standalone``.

    Attributes:
        process: the process.
        url: address of the API server.
        passwords: passwords by user id.
        log: log file.
    """

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
        """Start Airflow in its own process session. Its output is written to a log file.

        Args:
            profile: the local profile.
            root: folder of the checked-out repository.
            environment: result of `settings`.
        """
        home = Path(environment["AIRFLOW_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        users = environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
        passwords = _passwords(
            Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]),
            [ADMIN, *(user.partition(":")[0] for user in users)],
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
        """Wait until every component of Airflow reports that it is healthy.

        Args:
            progress: callback that receives a message every `PROGRESS_INTERVAL` seconds. The
                message names the components that are not ready.

        Raises:
            ServiceError: Airflow's process ended, or Airflow is not ready after `READY_TIMEOUT`
                seconds.
        """
        started_at = reported_at = time.monotonic()
        while waiting := self._not_ready():
            if self.process.poll() is not None:
                raise ServiceError("Airflow stopped while starting.", f"See {self.log}.")
            now = time.monotonic()
            if now - started_at >= READY_TIMEOUT:
                raise ServiceError(
                    f"Airflow was not ready after {READY_TIMEOUT} s: no answer from {waiting}.",
                    "The machine may be busy: run the command again; it continues where it "
                    f"stopped. If it fails again, see {self.log}.",
                )
            if now - reported_at >= PROGRESS_INTERVAL:
                reported_at = now
                progress(f"waiting for Airflow: {waiting}")
            time.sleep(1)

    def _not_ready(self) -> str:
        """Return the names of Airflow's components that are not healthy yet, separated by commas.

        The text is empty if all components are healthy.
        """
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
        """Log in to the REST API as the administrator, and return the client."""
        return self.api_as(ADMIN)

    def api_as(self, user: str) -> AirflowApi:
        """Log in to the REST API as an employee of the sample company, and return the client.

        Raises:
            ServiceError: the user has no password in this Airflow, or Airflow refused the log-in.
        """
        from include.local.airflow_api import AirflowApi

        if user not in self.passwords:
            raise ServiceError(
                f"{user} has no password in this Airflow.", "Answer the step in Airflow yourself."
            )
        return AirflowApi.login(self.url, user, self.passwords[user], str(self.log))

    def stop(self) -> None:
        """Stop Airflow and all of its child processes."""
        stop_tree(self.process.pid)
        self.process.wait()


def stop_tree(pid: int) -> None:
    """Stop a process and its child processes: first with SIGTERM, then with SIGKILL.

    Args:
        pid: id of the process. The process must be the leader of its session. Child processes that
            start during the stop can then be found by their session.
    """
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = [*root.children(recursive=True), root]
    for process in family:
        _signal(process, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT)
    for process in [*alive, *_session(pid)]:  # also children that started after the listing
        _signal(process, signal.SIGKILL)


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                members.append(process)
        except ProcessLookupError:
            continue
    return members


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Lock a home folder for a ``with`` block, so that only one `up` command uses the folder.

    The kernel releases the lock when the process ends.

    Raises:
        UsageError: another `up` with this home folder is running.
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
    """Stop the Airflow of this home folder if the `up` command that started it was killed.

    While an `up` command with this home folder is running, the function does nothing. Commands call
    this function before they stop the PostgreSQL server that Airflow uses.
    """
    if not (profile.home / "airflow.pid").exists():
        return
    try:
        with lock_home(profile.home):
            stop_leftover(profile)
    except UsageError:
        return  # the `up` of this Airflow is running


def stop_leftover(profile: LocalProfile) -> None:
    """Stop the Airflow that is still running because the `up` command that started it was killed.

    The caller must hold the lock of the home folder (`lock_home`).
    """
    pid_file = profile.home / "airflow.pid"
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text() or 0)
    pid_file.unlink()
    if pid and psutil.pid_exists(pid):
        try:
            arguments = psutil.Process(pid).cmdline()
        except psutil.Error:
            return
        if "standalone" in arguments:
            stop_tree(pid)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _path() -> str:
    """Return a value for PATH in which the programs of this Python environment come first.

    ``airflow standalone`` starts further ``airflow`` processes by name. With this value, they are
    the program of this Python environment.
    """
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _passwords(path: Path, users: Sequence[str]) -> dict[str, str]:
    """Return the stored passwords of users by user id. Generate and store missing passwords."""
    import secrets

    passwords: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    generated = {user: secrets.token_urlsafe(12) for user in users if user not in passwords}
    if generated:
        passwords |= generated
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(passwords, file)
    return passwords
