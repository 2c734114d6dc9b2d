"""One home with the sample database for all end-to-end tests, and the runs that they look at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from include.cli.stack import local_stack
from include.composition import new_workplace
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.policy import SHIPPED
from include.state.connect import engine
from include.workplace import ROOT, Workplace
from tests.e2e import databases
from tests.e2e.audited import Audited, audit
from tests.e2e.forked import DAGS_FOLDER, WITHOUT_PDF, Forked
from tests.e2e.incidents.led import Played, lead
from tests.e2e.retained import Retained, retain
from tests.support.damage import flip

CUSTOMERS = 300
# Failing tasks are repeated in production; here no test waits for that, unless it says so.
NO_RETRIES = """
import os
def task_policy(task):
    if "TEST_RETRIES" not in os.environ:
        task.retries = 0
"""


# They erase thousands of records, among which searches for values would take minutes.
WITH_MANY_RECORDS = {"test_corpus.py", "test_your_own_database.py"}


LAST = ["test_assets.py", "test_airflow_dags_test.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Search for canaries when every run was made that a test before needed.

    Incidents come just before: they hold records, and open a partner's review again. The last ones
    make runs whose results other tests would take for their own.
    """
    items.sort(
        key=lambda item: (
            item.path.name in WITH_MANY_RECORDS,
            LAST.index(item.path.name) + 1 if item.path.name in LAST else 0,
            item.path.name == "test_canary.py",
            _is_incident(item),
        )
    )


def _is_incident(item: pytest.Item) -> bool:
    return item.path.parent.name == "incidents"


@dataclass
class Cli:
    """The command line on one home.

    Attributes:
        place: the same home for looking into.
        environment: of every command.
        forked: makes processes for commands.
        rendered: workflows that have run once; further runs of them make no PDF files.
        started: commands but `run` that have run once; further ones may be forked.
    """

    place: Workplace
    environment: dict[str, str] = field(default_factory=dict)
    forked: Forked | None = None
    rendered: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    @property
    def home(self) -> Path:
        return self.place.home

    def call(
        self, *words: str, timeout: float = 280, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; the environment has what is needed and nothing of this shell's."""
        workflow = set(words[1:2]) if words[0] == "run" else set()
        if workflow & self.rendered:
            more.setdefault(WITHOUT_PDF, "1")
        self.rendered |= workflow
        may_be_forked = bool(workflow) or words[0] in self.started
        self.started |= {words[0]} - {"run"}
        return self._done(["-m", "include.cli", *words], timeout, more, may_be_forked)

    def script(self, text: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a workflow by a text in Python, which gets the words."""
        return self._done(["-c", text, *words], 280, more, True)

    def _done(
        self, words: Sequence[str], timeout: float, more: Mapping[str, str], may_be_forked: bool
    ) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        if may_be_forked and self._is_forked(more):
            assert self.forked is not None
            try:
                return self.forked.call(words, environment)
            finally:
                self.forked.busy.release()
        return subprocess.run(
            [sys.executable, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.home,
            env=environment,
        )

    def _is_forked(self, more: Mapping[str, str]) -> bool:
        """Return whether a command is forked: Airflow's settings are those of the import, but DAGs.

        If so, `forked.busy` is held. The first of all runs, and the first of each other command,
        is a process of its own, as a user's.
        """
        known = (self.home / "airflow" / f"migrated-{AIRFLOW_RUNS}").exists()
        own = any(name.startswith("AIRFLOW__") for name in more if name != DAGS_FOLDER)
        if self.forked is None or own or not known:
            return False
        return self.forked.busy.acquire(blocking=False)

    def json(self, *words: str, code: int = 0, **more: str) -> dict[str, Any]:
        """Run a command with --json: stdout is one object in one line, and the exit code fits."""
        done = self.call(*words, "--json", **more)
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def postgres(self, database: str) -> str:
        """Return the connection string of the server's superuser."""
        return LocalProfile(self.place.home).postgres.conninfo(database)

    def uri(self, database: str, user: str, password: str) -> str:
        """Return an Airflow connection as a URI."""
        folder = str(LocalProfile(self.place.home).postgres.socket_folder).replace("/", "%2F")
        return f"postgresql://{user}:{password}@{folder}/{database}"


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    """The sample database is loaded and the server runs for the whole session."""
    home = Path(tempfile.mkdtemp(prefix="parcelseal-e2e-"))
    home.chmod(0o755)
    place = new_workplace(home, SHIPPED, lambda _: None)
    settings = home / "airflow" / "config"
    settings.mkdir(parents=True)
    (settings / "airflow_local_settings.py").write_text(NO_RETRIES)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PARCELSEAL_HOME": str(home),
    }
    with local_stack(place, customers=CUSTOMERS, always=True):
        forked = Forked(environment, home)
        yield Cli(place, environment, forked)
        forked.stop()
    LocalProfile(place.home).postgres.stop()
    engine(place.database("state_db").conninfo()).dispose()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def backed_up(cli: Cli) -> dict[str, Any]:
    """The sample's backup."""
    return cli.json("run", "backup_offsite")


@pytest.fixture(scope="session")
def drilled(cli: Cli, backed_up: dict[str, Any]) -> dict[str, Any]:
    """The sample's drill."""
    return cli.json("run", "drill_restore")


@pytest.fixture(scope="session")
def checked(cli: Cli) -> dict[str, Any]:
    """The sample's check of quality, red as it should be."""
    return cli.json("run", "check_quality", code=1)


@pytest.fixture(scope="session")
def partners(cli: Cli, any_hour: str) -> dict[str, Any]:
    """The sample's look at its partners, red as it should be."""
    return cli.json("run", "review_partners", code=1, PARCELSEAL_POLICY=any_hour)


@pytest.fixture(scope="session")
def any_hour(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped pack for a company that works today and tells people things at night too."""
    folder = tmp_path_factory.mktemp("packs") / "any_hour"
    shutil.copytree(SHIPPED, folder)
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date()  # noqa: TID251 - the runs' own day
    opened = [str(today + timedelta(days=days)) for days in (0, 1)]
    calendar = {"opened": opened, "quiet": {"begins": "00:00", "ends": "00:00"}}
    (folder / "calendar.yaml").write_text(yaml.safe_dump(calendar))
    return str(folder)


@pytest.fixture(scope="session")
def reminded(cli: Cli, any_hour: str) -> dict[str, Any]:
    """The sample's training reminders, red as they should be."""
    return cli.json("run", "remind_training", code=1, PARCELSEAL_POLICY=any_hour)


@pytest.fixture(scope="session")
def retained(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Retained:
    """A copy of the sample under its retention schedule, with a run that was approved."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    places = [place for one in sheet["canaries"] for place in one["places"]]
    marked = max(key for name, key in places if name == "waybill.sender_name")
    return retain(cli, marked, tmp_path_factory.mktemp("packs") / "branch")


@pytest.fixture(scope="session")
def audited(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """A larger sample, audited until its first conclusion."""
    return audit(cli, tmp_path_factory.mktemp("packs") / "audited")


@pytest.fixture(scope="session")
def led(cli: Cli, backed_up: dict[str, Any]) -> dict[str, Played]:
    """An incident of each type but one, led over REST; the backup's run made Airflow's database."""
    del backed_up
    return lead(cli)


@pytest.fixture(scope="session")
def library(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that points every command at the library."""
    databases.make(
        cli.postgres("postgres"), "library", databases.LIBRARY, "library_reader", "pass/word"
    )
    pack = databases.library_pack(tmp_path_factory.mktemp("packs") / "library")
    return {
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri("library", "library_reader", "pass%2Fword"),
        "PARCELSEAL_POLICY": str(pack),
    }


@dataclass(frozen=True)
class FailedRuns:
    """A backup and a drill of databases with which something goes wrong."""

    environment: dict[str, str]
    backup: dict[str, Any]
    drill: dict[str, Any]


@pytest.fixture(scope="session")
def failed(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> FailedRuns:
    """Every database but `sound` fails in its own way, two of them with a quoted value."""
    pack = databases.faulty_pack(tmp_path_factory.mktemp("packs") / "faulty")
    environment = {"PARCELSEAL_POLICY": str(pack)}
    for name, script in databases.FAULTY.items():
        databases.make(cli.postgres("postgres"), name, script, "faulty_reader", "secret")
        environment[f"AIRFLOW_CONN_{name.upper()}_DB"] = cli.uri(name, "faulty_reader", "secret")
    connected = {key: value for key, value in environment.items() if "HOMELESS" not in key}
    backup = cli.json("run", "backup_offsite", code=1, **connected)
    offsite = cli.home / "offsite"
    flip(next((offsite / "tampered").glob("*/database.dump.zst.enc")), -40)
    flip(next((offsite / "forged").glob("*/manifest.json")), 200)
    # In production, workers that drill have no connection to a mapped database.
    drill = cli.json("run", "drill_restore", code=1, PARCELSEAL_POLICY=str(pack))
    return FailedRuns(environment, backup, drill)


PROBE = """
import json, os, sys
from pathlib import Path
from include.cli.console import output_to
from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT
os.environ.update(local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None))
from include.orchestration.inprocess import prepare  # imports Airflow, which reads its settings
folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
with output_to(Path(sys.argv[1])):
    runs = {"early": prepare(folder, "early", {}, []).run()}
    from airflow import settings
    settings.configure_orm()  # a command has one run and leaves the database after it
    runs["inside"] = prepare(folder, "inside", {}, []).run()
print(json.dumps({name: [run.run_id, run.state] for name, run in runs.items()}))
"""


@dataclass(frozen=True)
class Probed:
    """The probes' results and the log of their run."""

    runs: dict[str, dict[str, Any]]
    states: dict[str, str]
    log: str


@pytest.fixture(scope="session")
def probed(cli: Cli, backed_up: dict[str, Any]) -> Probed:
    """Runs whose tasks fail in every way; see probes/probe.py."""
    log = cli.home / "logs" / "probe.log"
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "probes")}
    done = cli.script(PROBE, str(log), **folder)
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout)
    results = {}
    for name, (run_id, _state) in ran.items():
        (found,) = [
            content
            for path in (cli.home / "evidence" / name).rglob("result.json")
            if (content := json.loads(path.read_text()))["run"]["run_id"] == run_id
        ]
        results[name] = found
    return Probed(results, {name: state for name, (_, state) in ran.items()}, log.read_text())
