"""Tests of interrupted freezing: a lost server or a killed process leaves no frame."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from include.sampling.frame import freeze
from include.sampling.rules import AUDIT, Population
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import ServiceError
from tests.sampling.company import Company, population, third_quarter

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]
LARGE = "SELECT g AS id FROM generate_series(1, 600000) AS g"
COPYING = (
    "FROM pg_stat_activity WHERE query LIKE 'COPY (WITH period%' AND datname = current_database() "
    "AND pid <> pg_backend_pid()"
)


class InterruptingSink:
    """A sink that runs an SQL statement when it receives the first piece of the frame."""

    def __init__(self, company: Company, statement: str) -> None:
        self.company, self.statement, self.pieces = company, statement, 0

    def write(self, data: bytes) -> int:
        if not self.pieces:
            self.company.sql(self.statement)
            if "terminate" in self.statement:
                wait_until_gone(self.company)
        self.pieces += 1
        return len(data)


def wait_until_gone(company: Company) -> None:
    end = time.monotonic() + 300
    while company.sql(f"SELECT 1 {COPYING}"):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("pg_terminate_backend", "57P01|the connection to the server was lost"),
        ("pg_cancel_backend", "57014"),
    ],
)
def test_freeze_of_population_raises_service_error_if_session_or_query_is_terminated(
    company: Company, call: str, state: str
) -> None:
    """The received pieces may end with a complete line, although the population is not complete."""
    company.use_populations(population(sql=LARGE))
    context = company.context()
    sink = InterruptingSink(company, f"SELECT {call}(pid) {COPYING}")
    with pytest.raises(ServiceError, match="could not be read completely") as caught:
        freeze(
            context.reader("shop"),
            context.database("shop"),
            context.rules.populations[0],
            third_quarter(),
            sink,
        )
    assert sink.pieces >= 1
    assert re.search(state, caught.value.message)
    assert "No commitment was sealed" in caught.value.action


def test_interrupted_freeze_of_population_leaves_no_partial_file(company: Company) -> None:
    """The file of a frame exists completely or not at all."""
    company.use_populations(population(sql=LARGE))
    company.begin()

    def terminate() -> None:
        while not company.sql(f"SELECT pg_terminate_backend(pid) {COPYING}"):
            time.sleep(0.001)

    killer = threading.Thread(target=terminate)
    killer.start()
    with pytest.raises(ServiceError):
        company.freeze("openings")
    killer.join()
    assert [path for path in company.root.rglob("*") if path.is_file()] == []
    company.freeze("openings")
    assert company.frame_path("openings").stat().st_size > 4_000_000
    assert [path for path in company.root.rglob("*") if path.is_file()] == [
        company.frame_path("openings")
    ]


def test_freeze_raises_database_unavailable_if_database_server_cannot_be_reached(
    company: Company,
) -> None:
    """Airflow retries a task that fails with this error."""
    context = company.context()
    nowhere = DatabaseAddress.from_conninfo("host=127.0.0.1 port=1 user=nobody dbname=none")
    with pytest.raises(DatabaseUnavailable):
        freeze(
            nowhere,
            context.database("shop"),
            context.rules.populations[0],
            third_quarter(),
            InterruptingSink(company, ""),
        )


def test_freeze_of_6_times_larger_population_needs_less_than_1_5_times_the_memory(
    company: Company,
) -> None:
    """Counting and hashing keep only one piece of the frame in memory."""

    class DiscardingSink:
        def write(self, data: bytes) -> int:
            return len(data)

    context = company.context()
    peaks = []
    for sql in (LARGE.replace("600000", "100000"), LARGE):
        tracemalloc.start()
        freeze(
            context.reader("shop"),
            context.database("shop"),
            population_of(company, sql),
            third_quarter(),
            DiscardingSink(),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


CHILD = """
import signal, sys
from include.sampling.rules import AUDIT
from include.sampling.frame import freeze
from include.services.database import DatabaseAddress
from tests.sampling.company import pack_with, population, third_quarter
from pathlib import Path

class Sink:
    def write(self, data):
        print("streaming", flush=True)
        signal.pause()

pack = pack_with(Path(sys.argv[1]), population(sql=sys.argv[3]))
address = DatabaseAddress.from_conninfo(sys.argv[2])
freeze(address, pack.database("shop"), pack.section(AUDIT).populations[0], third_quarter(), Sink())
"""


def test_killed_freeze_of_population_leaves_no_psql_process_and_no_database_session(
    company: Company, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), company.source, LARGE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "streaming\n"
        (psql,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert "psql" in Path(f"/proc/{psql}/cmdline").read_text()
        assert company.sql(f"SELECT 1 {COPYING}")
        child.kill()
    wait_until_gone(company)
    end = time.monotonic() + 300
    while is_running(psql):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_keyboard_interrupt_during_freeze_cancels_sql_statement_that_has_returned_no_row_yet(
    company: Company,
) -> None:
    """Without a cancel request, the server notices the lost session only when it sends a row."""
    population = population_of(company, "SELECT 1 AS id WHERE (SELECT pg_sleep(40)) IS NOT NULL")
    context = company.context()

    def interrupt() -> None:
        end = time.monotonic() + 300
        while not company.sql(f"SELECT 1 {COPYING}") and time.monotonic() < end:
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        freeze(
            context.reader("shop"),
            context.database("shop"),
            population,
            third_quarter(),
            InterruptingSink(company, "SELECT 1"),
        )
    thread.join()
    wait_until_gone(company)


def is_running(pid: str) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_command_line_of_psql_has_no_password(company: Company) -> None:
    """All users of the machine can read the command lines of its processes."""
    command_lines: list[str] = []

    class RecordingSink(InterruptingSink):
        def write(self, data: bytes) -> int:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = path.read_text()
                except OSError:
                    continue
                if "psql" in words and "COPY (WITH period" in words:
                    command_lines.append(words)
            return len(data)

    context = company.context()
    address = context.reader("shop")
    assert address.password
    freeze(
        address,
        context.database("shop"),
        population_of(company, LARGE),
        third_quarter(),
        RecordingSink(company, ""),
    )
    assert command_lines
    assert not [line for line in command_lines if address.password in line]


def population_of(company: Company, sql: str) -> Population:
    rules = company.pack.section(AUDIT)
    assert rules is not None
    return rules.populations[0].model_copy(update={"sql": sql})
