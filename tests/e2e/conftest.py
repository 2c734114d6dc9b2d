"""A home folder with the sample database for all end-to-end tests, and the runs that they check."""

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
from include.composition import build_services
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.policy import SHIPPED
from include.service_container import ROOT, Services
from include.state.connect import engine
from tests.e2e import databases
from tests.e2e.audited import Audited, audit
from tests.e2e.forked import DAGS_FOLDER, WITHOUT_PDF, Forked
from tests.e2e.incidents.incident_driver import Played, lead
from tests.e2e.retained import Retained, retain
from tests.support.damage import flip

CUSTOMERS = 300
# Failing tasks are retried in production; tests wait for that only if they ask for it.
NO_RETRIES = """
import os
def task_policy(task):
    if "TEST_RETRIES" not in os.environ:
        task.retries = 0
"""


# These tests erase thousands of records, in which the search of the canary tests takes minutes.
WITH_MANY_RECORDS = {"test_corpus.py", "test_your_own_database.py"}


LAST = ["test_assets.py", "test_airflow_dags_test.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the canary tests after all tests whose runs they search.

    Incident tests come just before, because incidents put records on hold and reopen a partner's
    review. The files in `LAST` come last, because other tests would mistake the runs of these files
    for their own runs.
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
    """The command line with a home folder.

    Attributes:
        services: services with the same home folder, for checks.
        environment: environment variables of every command.
        forked: starts processes for commands.
        rendered: workflows that have run once. Their later runs make no PDF files.
        started: commands except `run` that have run once. Their later calls may be forked.
    """

    services: Services
    environment: dict[str, str] = field(default_factory=dict)
    forked: Forked | None = None
    rendered: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    @property
    def home(self) -> Path:
        return self.services.home

    def call(
        self, *words: str, timeout: float = 280, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with a minimal environment that has no variables of this shell.

        Args:
            words: arguments of the command line.
            timeout: seconds after which the command is killed.
            more: additional environment variables.
        """
        workflow = set(words[1:2]) if words[0] == "run" else set()
        if workflow & self.rendered:
            more.setdefault(WITHOUT_PDF, "1")
        self.rendered |= workflow
        may_be_forked = bool(workflow) or words[0] in self.started
        self.started |= {words[0]} - {"run"}
        return self._run_command(["-m", "include.cli", *words], timeout, more, may_be_forked)

    def script(self, text: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program with arguments, in the environment of a command.

        Args:
            text: source code of the program.
            words: arguments of the program.
            more: additional environment variables.
        """
        return self._run_command(["-c", text, *words], 280, more, True)

    def _run_command(
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
        """Return whether a command is forked. If so, the lock `forked.busy` is held.

        A command is forked only if it changes no Airflow setting except the DAGs folder. The very
        first run, and the first call of each other command, are started as separate processes, as
        by a user.

        Args:
            more: environment variables that only this command gets.
        """
        is_migrated = (self.home / "airflow" / f"migrated-{AIRFLOW_RUNS}").exists()
        own = any(name.startswith("AIRFLOW__") for name in more if name != DAGS_FOLDER)
        if self.forked is None or own or not is_migrated:
            return False
        return self.forked.busy.acquire(blocking=False)

    def json(self, *words: str, code: int = 0, **more: str) -> dict[str, Any]:
        """Run a command with --json, check its exit code, and return the printed JSON object.

        Args:
            words: arguments of the command line, without --json.
            code: expected exit code.
            more: additional environment variables.
        """
        completed = self.call(*words, "--json", **more)
        assert completed.returncode == code, completed.stdout + completed.stderr
        assert completed.stdout.count("\n") == 1
        assert "Traceback" not in completed.stderr
        result = json.loads(completed.stdout)
        assert isinstance(result, dict)
        return result

    def postgres(self, database: str) -> str:
        """Return a connection string for a database, with the superuser's login."""
        return LocalProfile(self.services.home).postgres.conninfo(database)

    def uri(self, database: str, user: str, password: str) -> str:
        """Return the URI of an Airflow connection to a database."""
        folder = str(LocalProfile(self.services.home).postgres.socket_folder).replace("/", "%2F")
        return f"postgresql://{user}:{password}@{folder}/{database}"


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    """The command line with a home folder whose sample database is loaded once per session."""
    home = Path(tempfile.mkdtemp(prefix="parcelseal-e2e-"))
    home.chmod(0o755)
    services = build_services(home, SHIPPED, lambda _: None)
    settings = home / "airflow" / "config"
    settings.mkdir(parents=True)
    (settings / "airflow_local_settings.py").write_text(NO_RETRIES)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONPATH": str(ROOT),
        "PARCELSEAL_HOME": str(home),
    }
    with local_stack(services, customers=CUSTOMERS, always=True):
        forked = Forked(environment, home)
        yield Cli(services, environment, forked)
        forked.stop()
    LocalProfile(services.home).postgres.stop()
    engine(services.database("state_db").conninfo()).dispose()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def backed_up(cli: Cli) -> dict[str, Any]:
    """The result of a backup of the sample database."""
    return cli.json("run", "backup_offsite")


@pytest.fixture(scope="session")
def drilled(cli: Cli, backed_up: dict[str, Any]) -> dict[str, Any]:
    """The result of a restore drill of the sample database."""
    return cli.json("run", "drill_restore")


@pytest.fixture(scope="session")
def checked(cli: Cli) -> dict[str, Any]:
    """The result of a quality check of the sample, which fails because of deliberate defects."""
    return cli.json("run", "check_quality", code=1)


@pytest.fixture(scope="session")
def partners(cli: Cli, any_hour: str) -> dict[str, Any]:
    """The result of the sample's partner review, which fails because of deliberate defects."""
    return cli.json("run", "review_partners", code=1, PARCELSEAL_POLICY=any_hour)


@dataclass(frozen=True)
class Used:
    """An extract that was requested, approved, delivered and opened with commands.

    Attributes:
        prepared: output of ``access request``.
        run: result of the run of `use_information`.
        file: the opened extract.
    """

    prepared: dict[str, Any]
    run: dict[str, Any]
    file: Path


@pytest.fixture(scope="session")
def used(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Used:
    """An extract of unmasked customer information, which includes canary values."""
    prepared = cli.json(
        *("access", "request", "--by", "E00011", "--purpose", "delivery", "--days", "2"),
        *("--collection", "courier.customer", "--case", "CS-1", "--form", "zip"),
        *("--field", "customer_id", "--field", "name", "--field", "phone"),
        *("--unmask", "name", "--unmask", "phone", "--code", "status=active,dormant,closed"),
    )
    answers = ("--answer", "approve=Approve", "--answer", "approve_second=Approve")
    conf = json.dumps({"request": prepared["request"]})
    run = cli.json("run", "use_information", "--conf", conf, *answers)
    file = tmp_path_factory.mktemp("opened") / "extract.zip"
    cli.json("access", "open", str(prepared["request"]), "--by", "E00011", "--out", str(file))
    return Used(prepared, run, file)


@pytest.fixture(scope="session")
def any_hour(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the shipped policy pack, changed so that notifications are sent at any time.

    Today is a workday, and there are no quiet hours.
    """
    folder = tmp_path_factory.mktemp("packs") / "any_hour"
    shutil.copytree(SHIPPED, folder)
    today = datetime.now(ZoneInfo("Asia/Shanghai")).date()  # noqa: TID251 - the runs' own day
    opened = [str(today + timedelta(days=days)) for days in (0, 1)]
    calendar = {"opened": opened, "quiet": {"begins": "00:00", "ends": "00:00"}}
    (folder / "calendar.yaml").write_text(yaml.safe_dump(calendar))
    return str(folder)


@pytest.fixture(scope="session")
def reminded(cli: Cli, any_hour: str) -> dict[str, Any]:
    """The result of the sample's training reminders, which fail because of deliberate defects."""
    return cli.json("run", "remind_training", code=1, PARCELSEAL_POLICY=any_hour)


@pytest.fixture(scope="session")
def retained(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Retained:
    """A copy of the sample database with a retention run that was approved."""
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    places = [location for canary in sheet["canaries"] for location in canary["places"]]
    marked = max(key for name, key in places if name == "waybill.sender_name")
    return retain(cli, marked, tmp_path_factory.mktemp("packs") / "branch")


@pytest.fixture(scope="session")
def audited(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Audited:
    """A larger sample database, audited until its first conclusion."""
    return audit(cli, tmp_path_factory.mktemp("packs") / "audited")


@pytest.fixture(scope="session")
def led(cli: Cli, backed_up: dict[str, Any]) -> dict[str, Played]:
    """The finished incidents of all incident types except one; people answered over REST.

    The backup comes first, because its run creates Airflow's database.
    """
    del backed_up
    return lead(cli)


@pytest.fixture(scope="session")
def library(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables with which commands use the database of a library."""
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
    """A backup and a restore drill of faulty databases."""

    environment: dict[str, str]
    backup: dict[str, Any]
    drill: dict[str, Any]


@pytest.fixture(scope="session")
def failed(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> FailedRuns:
    """The failed runs on faulty databases.

    In every database except `sound`, the runs fail for another reason. Two error messages quote a
    value.
    """
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
from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.service_container import ROOT
profile = LocalProfile(command_services().home)
os.environ.update(local_airflow.settings(profile, ROOT, AIRFLOW_RUNS, None))
from include.orchestration.in_process_run import prepare  # imports Airflow after its settings
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
    """The results of the runs in probes/probe.py, and their log."""

    runs: dict[str, dict[str, Any]]
    states: dict[str, str]
    log: str


@pytest.fixture(scope="session")
def probed(cli: Cli, backed_up: dict[str, Any]) -> Probed:
    """Runs of the DAGs in probes/probe.py, whose tasks fail."""
    log = cli.home / "logs" / "probe.log"
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "probes")}
    completed = cli.script(PROBE, str(log), **folder)
    assert completed.returncode == 0, completed.stderr
    results_by_name = json.loads(completed.stdout)
    results = {}
    for name, (run_id, _state) in results_by_name.items():
        (result,) = [
            content
            for path in (cli.home / "evidence" / name).rglob("result.json")
            if (content := json.loads(path.read_text()))["run"]["run_id"] == run_id
        ]
        results[name] = result
    return Probed(
        results, {name: state for name, (_, state) in results_by_name.items()}, log.read_text()
    )
