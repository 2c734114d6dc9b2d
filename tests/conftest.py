"""Servers that many tests share: an embedded PostgreSQL and an S3 server for the session."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from include.local.postgres import SUPERUSER, EmbeddedPostgres
from tests.support import parallel
from tests.support.databases import as_template, fresh, migrated
from tests.support.processor_time import ProcessorTime, summary
from tests.support.servers import Servers, deselect_missing, running_servers

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

    from tests.plugins.company import Company
    from tests.plugins.shown import Shown
    from tests.support.s3 import MotoServer

# Python's collector would go over all modules and six thousand tests again and again.
gc.set_threshold(50_000, 20, 20)
# A slow moment of a busy machine is no finding; pytest-timeout ends what hangs. Each run tries
# other examples; TEST_EXAMPLES tries more of them where a test does not say how many.
settings.register_profile(
    "suite", deadline=None, max_examples=int(os.environ.get("TEST_EXAMPLES", "40"))
)
settings.load_profile("suite")
# Not durable, since tests never survive a power cut; and a password in one round instead of 4096,
# which take most of the time of the twenty thousand connections that tests open.
HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": "2",
    "scram_iterations": "1",
}

MISSING_SERVERS = pytest.StashKey[list[str]]()
MISSING = "missing_servers"  # the same in what a worker of pytest-xdist returns


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="only fast tests: no Airflow, browser, PDF or killed process, no file over 3.2 s",
    )
    parser.addoption(
        "--write-durations",
        action="store_true",
        help="record in tests/durations.json how long each file took, for --quick and -n",
    )
    parser.addoption(
        "--processor-time",
        action="store_true",
        help="print the processor seconds of each folder, and of the files that take most",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Measure the processor seconds of each test."""
    if config.getoption("processor_time"):
        config.pluginmanager.register(ProcessorTime())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that are not quick without importing them."""
    if config.getoption("quick") and collection_path.name.startswith("test_"):
        path = collection_path.relative_to(config.rootpath).as_posix()
        return parallel.takes_long(path) or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need a server that this machine does not have, or that are not quick."""
    config.stash[MISSING_SERVERS] = deselect_missing(config, items)
    if config.getoption("quick"):
        slow = [item for item in items if any(map(item.get_closest_marker, parallel.NOT_QUICK))]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_collection_finish() -> None:
    """Exclude imported modules and collected tests from garbage collection.

    A collection before it would take half a second and find little.
    """
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for ``-n auto``."""
    return parallel.number_of_workers(config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Let interrupted workers stop their servers; pytest-xdist would kill them after 10 s."""
    from xdist.workermanage import NodeManager

    NodeManager.EXIT_TIMEOUT = parallel.STOP_TIMEOUT


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Return the scheduler that keeps the tests of a group together."""
    return parallel.GroupScheduling(config, log)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Let the whole Airflow go first, if other workers run at the same time."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        parallel.give_way(nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Return the missing servers to the process that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[MISSING] = session.config.stash.get(MISSING_SERVERS, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Take over the missing servers from a worker, unless it was killed."""
    if output := getattr(node, "workeroutput", None):
        node.config.stash[MISSING_SERVERS] = output[MISSING]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the versions of servers whose tests were deselected; write the durations."""
    for line in config.stash.get(MISSING_SERVERS, []):
        terminalreporter.write_line(line)
    if config.getoption("processor_time"):
        reports = (report for group in terminalreporter.stats.values() for report in group)
        for line in summary(reports):
            terminalreporter.write_line(line)
    if config.getoption("write_durations"):
        seconds: defaultdict[str, float] = defaultdict(float)
        for reports in terminalreporter.stats.values():
            for report in reports:
                if isinstance(report, pytest.TestReport):
                    seconds[report.nodeid.partition("::")[0]] += report.duration
        parallel.write_durations(seconds)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A throw-away PostgreSQL 18 server."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings=HASTY)
    server.start()
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        words = sql.Identifier(SUPERUSER), sql.Literal(server.password)
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(*words))  # in fewer rounds
    as_template(server.conninfo("template1"))
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(postgres: EmbeddedPostgres) -> Iterator[Servers]:
    """Servers of each supported version, started at first use."""
    with running_servers(postgres) as servers:
        yield servers


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """An S3 server for all tests, which make buckets of their own; it takes seconds to start."""
    from tests.support.s3 import start_moto

    server = start_moto()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The connection string of an empty database that the test may fill; dropped afterwards."""
    with fresh(postgres) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="session")
def migrated_once(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated state database, which is only for copies."""
    return migrated(postgres)


@pytest.fixture
def migrated_database(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    """The connection string of a migrated state database of the test's own, without a record."""
    with fresh(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="session")
def made(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Company]:
    """A company for the compliance pages to show, which no test changes but for a moment."""
    from tests.plugins.company import company

    root = Path(tempfile.mkdtemp(prefix="parcelseal-company-"))
    try:
        with company(postgres, migrated_once, root) as found:
            yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def shown(postgres: EmbeddedPostgres, made: Company) -> Iterator[Shown]:
    """The one API server with FAB, for tests of pages and of roles: it takes long to start."""
    from tests.plugins.shown import Shown
    from tests.support.fab import fab_airflow

    folder = Path(tempfile.mkdtemp(prefix="parcelseal-fab-"))
    everybody_at_once = {"AIRFLOW__FAB__AUTH_RATE_LIMITED": "False"}  # 5 in 40 s from one place
    try:
        with fab_airflow(postgres, folder, {**made.environment, **everybody_at_once}) as airflow:
            yield Shown(airflow, made)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
