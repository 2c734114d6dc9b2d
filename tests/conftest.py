"""Servers that many tests share: one embedded PostgreSQL and one S3 server per test session."""

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
from tests.support.databases import as_template, migrated, temporary_database
from tests.support.processor_time import ProcessorTime, summary
from tests.support.servers import Servers, deselect_missing, running_servers

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

    from tests.plugins.company import Company
    from tests.plugins.pages_server import PagesServer
    from tests.support.s3 import MotoServer

# With the default, Python's collector would visit all modules and 6,000 tests again and again.
gc.set_threshold(50_000, 20, 20)
# No deadline, because a busy machine is slow; pytest-timeout ends hanging tests. Each run tries
# other examples. TEST_EXAMPLES sets their number for tests that do not set it themselves.
settings.register_profile(
    "suite", deadline=None, max_examples=int(os.environ.get("TEST_EXAMPLES", "40"))
)
settings.load_profile("suite")
# Without durability, which tests do not need. Passwords are hashed in 1 round instead of 4,096,
# because hashing would take most of the time of the 20,000 connections that tests open.
HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": "2",
    "scram_iterations": "1",
}

MISSING_SERVERS = pytest.StashKey[list[str]]()
MISSING = "missing_servers"  # the same list in the output of a pytest-xdist worker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options of this test suite."""
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
    """Measure the processor seconds of each test if the command line asks for it."""
    if config.getoption("processor_time"):
        config.pluginmanager.register(ProcessorTime())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``--quick``, skip slow test files without importing them."""
    if config.getoption("quick") and collection_path.name.startswith("test_"):
        path = collection_path.relative_to(config.rootpath).as_posix()
        return parallel.takes_long(path) or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose server is missing on this machine and, with ``--quick``, slow tests."""
    config.stash[MISSING_SERVERS] = deselect_missing(config, items)
    if config.getoption("quick"):
        slow = [item for item in items if any(map(item.get_closest_marker, parallel.NOT_QUICK))]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_collection_finish() -> None:
    """Exclude imported modules and collected tests from garbage collection.

    Running the garbage collector first would take half a second and free little memory.
    """
    gc.freeze()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for ``-n auto``."""
    return parallel.number_of_workers(config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Give interrupted workers the time to stop their servers.

    pytest-xdist would kill them after 10 seconds.
    """
    from xdist.workermanage import NodeManager

    NodeManager.EXIT_TIMEOUT = parallel.STOP_TIMEOUT


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Return a scheduler that runs the tests of a group in the same worker."""
    return parallel.GroupScheduling(config, log)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Lower the priority of this worker's tests, except for tests with a complete Airflow."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        parallel.give_way(nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the list of missing servers from a worker to the process that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[MISSING] = session.config.stash.get(MISSING_SERVERS, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    """Receive the list of missing servers from a worker. A killed worker sends no list."""
    if output := getattr(node, "workeroutput", None):
        node.config.stash[MISSING_SERVERS] = output[MISSING]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the missing servers whose tests were deselected, and write the durations."""
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
    """A temporary PostgreSQL 18 server."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings=HASTY)
    server.start()
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        words = sql.Identifier(SUPERUSER), sql.Literal(server.password)
        # Hash it again, in fewer rounds.
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(*words))
    as_template(server.conninfo("template1"))
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(postgres: EmbeddedPostgres) -> Iterator[Servers]:
    """PostgreSQL servers of each supported version. Each starts at its first use."""
    with running_servers(postgres) as servers:
        yield servers


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """An S3 server that all tests share, because it takes seconds to start.

    Each test creates its own bucket.
    """
    from tests.support.s3 import start_moto

    server = start_moto()
    yield server
    server.stop()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The connection string of an empty database, dropped after the test."""
    with temporary_database(postgres) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="session")
def migrated_once(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated state database that serves as a template."""
    return migrated(postgres)


@pytest.fixture
def migrated_database(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[str]:
    """The connection string of an empty migrated state database for the test."""
    with temporary_database(postgres, migrated_once) as name:
        yield postgres.conninfo(name)


@pytest.fixture(scope="session")
def pages_company(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Company]:
    """A company with data for the compliance pages. Tests undo their changes."""
    from tests.plugins.company import company

    root = Path(tempfile.mkdtemp(prefix="parcelseal-company-"))
    try:
        with company(postgres, migrated_once, root) as found:
            yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def pages_server(postgres: EmbeddedPostgres, pages_company: Company) -> Iterator[PagesServer]:
    """Airflow's API server with the FAB auth manager.

    Tests of pages and tests of roles share the server, because it starts slowly.
    """
    from tests.plugins.pages_server import PagesServer
    from tests.support.fab import fab_airflow

    folder = Path(tempfile.mkdtemp(prefix="parcelseal-fab-"))
    # Otherwise 5 log-ins in 40 s per address.
    everybody_at_once = {"AIRFLOW__FAB__AUTH_RATE_LIMITED": "False"}
    try:
        with fab_airflow(
            postgres, folder, {**pages_company.environment, **everybody_at_once}
        ) as airflow:
            yield PagesServer(airflow, pages_company)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
