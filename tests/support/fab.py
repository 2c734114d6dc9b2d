"""A real Airflow API server with the FAB auth manager, ParcelSeal's roles, and a user per role.

    with fab_airflow(postgres, folder) as airflow:
        airflow.session("Auditor").get(f"{airflow.url}/api/v2/dags")

The server's database contains every DAG of dags/, as the DAG processor would write them. No
scheduler and no worker runs. The start takes about 12 s, so tests should share a server.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psycopg
import requests
from sqlalchemy.engine import URL

from include.local.airflow import free_port
from include.local.postgres import SUPERUSER, EmbeddedPostgres
from include.orchestration.access.roles import all_roles
from include.policy import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT
from tests.support.databases import temporary_database

ADMIN = "Admin"  # FAB's own role
ANSWER_TIMEOUT = 120  # seconds, for a request or a command
READY_TIMEOUT = 600  # seconds; a start takes half a minute, and minutes on a busy machine
MANAGER = "include.orchestration.access.manager.AccountFabAuthManager"
# One process creates the database and serves it, because importing Airflow takes longest. Between
# both, it changes roles like Airflow itself: for each parsed DAG, at each start of an API server,
# and in `airflow sync-perm`.
SERVE = """
import sys
from pathlib import Path
from airflow.utils.db import initdb
initdb()
from include.cli.app import _run
code = _run(["roles", "sync", "--users", sys.argv[1], "--passwords", sys.argv[2]])
assert code == 0, code
from airflow.configuration import conf
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
DagBundlesManager().sync_bundles_to_db()
folder = Path(conf.get("core", "dags_folder"))
bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
sync_bag_to_db(bag, "dags-folder", None)
from airflow.providers.fab.www.security_appless import ApplessAirflowSecurityManager
from airflow.utils.session import create_session
with create_session() as session:  # that parsing wrote permissions is what is tested
    assert ApplessAirflowSecurityManager(session).get_permission(
        "can_delete", "DAG Run:backup_offsite"
    )
from airflow.__main__ import main
sys.argv = ["airflow", "sync-perm", "--include-dags"]
main()
sys.argv = ["airflow", "api-server", "--apps", "all", "--proxy-headers"]
main()
"""


@cache
def role_names() -> tuple[str, ...]:
    """Return the names of ParcelSeal's roles, the shipped pack's department roles, and Admin."""
    return (*(role.name for role in all_roles(load_pack(SHIPPED))), ADMIN)


def account_of(role: str) -> str:
    """Return the user id of the user with a role, for example ``on_call``."""
    return role.lower().replace(": ", "_").replace(" ", "_")


@dataclass
class FabAirflow:
    """A running API server.

    Attributes:
        url: address of the server, without a slash at the end.
        passwords: passwords by user id.
        environment: environment variables of every process of this Airflow.
        database: libpq connection string of Airflow's own database.
        folder: folder of logs and other files.
    """

    url: str
    passwords: Mapping[str, str]
    environment: Mapping[str, str]
    database: str
    folder: Path
    _tokens: dict[str, str] = field(default_factory=dict)

    def token(self, role: str) -> str:
        """Return an API token of the user with a role. The token is created at its first use."""
        account = account_of(role)
        if account not in self._tokens:
            answer = requests.post(
                f"{self.url}/auth/token",
                json={"username": account, "password": self.passwords[account]},
                timeout=ANSWER_TIMEOUT,
            )
            assert answer.status_code == 201, answer.text
            self._tokens[account] = answer.json()["access_token"]
        return self._tokens[account]

    def session(self, role: str | None) -> requests.Session:
        """Return an HTTP session with the token of a role, or an anonymous session for None."""
        session = requests.Session()
        if role is not None:
            session.headers["Authorization"] = f"Bearer {self.token(role)}"
        return session

    def cookies(self, role: str) -> dict[str, str]:
        """Return the cookies of a logged-in browser of a role's user: ``{"_token": ...}``."""
        return {"_token": self.token(role)}

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a Python command with the environment variables of this Airflow."""
        return subprocess.run(
            [sys.executable, *words],
            check=check,
            env=dict(self.environment),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=ANSWER_TIMEOUT,
        )


@contextmanager
def fab_airflow(
    server: EmbeddedPostgres,
    folder: Path,
    more_environment: Mapping[str, str] | None = None,
    more_people: Sequence[Mapping[str, object]] = (),
) -> Iterator[FabAirflow]:
    """Start an API server with a separate database, and stop it at the end.

    Args:
        server: the embedded PostgreSQL server.
        folder: empty folder for AIRFLOW_HOME, PARCELSEAL_HOME, and the files of users and
            passwords.
        more_environment: environment variables that override those set here.
        more_people: further users, as in a file of `roles sync --users`; their passwords are in
            ``passwords`` too.
    """
    with temporary_database(server) as name:
        environment = _environment(server, name, folder, more_environment or {})
        Path(environment["TMPDIR"]).mkdir()
        users, passwords = folder / "users.json", folder / "passwords.json"
        users.write_text(json.dumps([*map(_person, role_names()), *more_people]))
        with (folder / "api-server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(users), str(passwords)],
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url = environment["AIRFLOW__API__BASE_URL"]
        try:
            _wait(process, url, folder / "api-server.log")
            passwords_by_account = json.loads(passwords.read_text())
            yield FabAirflow(url, passwords_by_account, environment, server.conninfo(name), folder)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # SIGTERM would wait for open sessions
            process.wait()


def _person(role: str) -> dict[str, object]:
    account = account_of(role)
    return {"id": account, "name": role, "mail": f"{account}@courier.example", "roles": [role]}


def _environment(
    server: EmbeddedPostgres, database: str, folder: Path, more: Mapping[str, str]
) -> dict[str, str]:
    url = URL.create(
        "postgresql+psycopg2",
        username=SUPERUSER,
        password=server.password,
        database=database,
        query={"host": str(server.socket_folder)},
    )
    port = free_port()
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AIRFLOW_", "PARCELSEAL_"))
    }
    return {
        **kept,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "TMPDIR": str(folder / "tmp"),  # so that a test can see which files the server leaves
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__AUTH_MANAGER": MANAGER,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PARCELSEAL_HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + READY_TIMEOUT
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-4000:]
        try:
            if requests.get(f"{url}/api/v2/version", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not ready within {READY_TIMEOUT} s: {log.read_text()[-4000:]}")


def rows(database: str, query: str) -> list[tuple[object, ...]]:
    """Run a query on Airflow's own database, and return its rows."""
    with psycopg.connect(database) as connection:
        return connection.execute(query).fetchall()
