"""A frame that is cut off is none: servers that go away, and processes that are killed."""

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
from tests.sampling.rig import Rig, population, third_quarter

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[2]
LARGE = "SELECT g AS id FROM generate_series(1, 600000) AS g"
COPYING = (
    "FROM pg_stat_activity WHERE query LIKE 'COPY (WITH period%' AND datname = current_database() "
    "AND pid <> pg_backend_pid()"
)


class Cutting:
    """A sink that does something when the first piece has come."""

    def __init__(self, rig: Rig, statement: str) -> None:
        self.rig, self.statement, self.pieces = rig, statement, 0

    def write(self, data: bytes) -> int:
        if not self.pieces:
            self.rig.sql(self.statement)
            if "terminate" in self.statement:
                wait_until_gone(self.rig)
        self.pieces += 1
        return len(data)


def wait_until_gone(rig: Rig) -> None:
    end = time.monotonic() + 300
    while rig.sql(f"SELECT 1 {COPYING}"):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("call", "state"),
    [("pg_terminate_backend", "57P01|the server went away"), ("pg_cancel_backend", "57014")],
)
def test_a_server_that_is_cut_off_in_the_middle_leaves_no_frame(
    rig: Rig, call: str, state: str
) -> None:
    """What has come by then would be a whole number of lines, and is no population."""
    rig.audit(population(sql=LARGE))
    context = rig.context()
    sink = Cutting(rig, f"SELECT {call}(pid) {COPYING}")
    with pytest.raises(ServiceError, match="could not be read to its end") as caught:
        freeze(
            context.reader("shop"),
            context.database("shop"),
            context.rules.populations[0],
            third_quarter(),
            sink,
        )
    assert sink.pieces >= 1
    assert re.search(state, caught.value.message)
    assert "Nothing was committed to" in caught.value.action


def test_what_an_earlier_try_froze_stays_when_a_later_one_is_cut_off(rig: Rig) -> None:
    """A file appears whole or not at all, and takes the place of the one before at its end."""
    rig.audit(population(sql=LARGE))
    rig.begin()

    def terminate() -> None:
        while not rig.sql(f"SELECT pg_terminate_backend(pid) {COPYING}"):
            time.sleep(0.001)

    killer = threading.Thread(target=terminate)
    killer.start()
    with pytest.raises(ServiceError):
        rig.freeze("openings")
    killer.join()
    assert [one for one in rig.root.rglob("*") if one.is_file()] == []
    rig.freeze("openings")
    assert rig.frame_path("openings").stat().st_size > 4_000_000
    assert [one for one in rig.root.rglob("*") if one.is_file()] == [rig.frame_path("openings")]


def test_a_server_that_does_not_answer_is_no_fault_of_the_sql(rig: Rig) -> None:
    """The task is repeated."""
    context = rig.context()
    nowhere = DatabaseAddress.from_conninfo("host=127.0.0.1 port=1 user=nobody dbname=none")
    with pytest.raises(DatabaseUnavailable):
        freeze(
            nowhere,
            context.database("shop"),
            context.rules.populations[0],
            third_quarter(),
            Cutting(rig, ""),
        )


def test_memory_stays_flat(rig: Rig) -> None:
    """Counting and hashing keep a piece at a time, whatever the population's size."""

    class Nothing:
        def write(self, data: bytes) -> int:
            return len(data)

    context = rig.context()
    peaks = []
    for sql in (LARGE.replace("600000", "100000"), LARGE):
        tracemalloc.start()
        freeze(
            context.reader("shop"),
            context.database("shop"),
            population_of(rig, sql),
            third_quarter(),
            Nothing(),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


CHILD = """
import signal, sys
from include.sampling.rules import AUDIT
from include.sampling.frame import freeze
from include.services.database import DatabaseAddress
from tests.sampling.rig import pack_with, population, third_quarter
from pathlib import Path

class Sink:
    def write(self, data):
        print("streaming", flush=True)
        signal.pause()

pack = pack_with(Path(sys.argv[1]), population(sql=sys.argv[3]))
address = DatabaseAddress.from_conninfo(sys.argv[2])
freeze(address, pack.database("shop"), pack.section(AUDIT).populations[0], third_quarter(), Sink())
"""


def test_nothing_goes_on_reading_when_we_are_killed(rig: Rig, tmp_path: Path) -> None:
    """Neither psql nor the server's own process for it."""
    command = [sys.executable, "-c", CHILD, str(tmp_path), rig.source, LARGE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "streaming\n"
        (psql,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        assert "psql" in Path(f"/proc/{psql}/cmdline").read_text()
        assert rig.sql(f"SELECT 1 {COPYING}")
        child.kill()
    wait_until_gone(rig)
    end = time.monotonic() + 300
    while running(psql):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_interruption_cancels_the_statement_before_its_first_row(rig: Rig) -> None:
    """The server would notice a lost session when it sends a row."""
    population = population_of(rig, "SELECT 1 AS id WHERE (SELECT pg_sleep(40)) IS NOT NULL")
    context = rig.context()

    def interrupt() -> None:
        end = time.monotonic() + 300
        while not rig.sql(f"SELECT 1 {COPYING}") and time.monotonic() < end:
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
            Cutting(rig, "SELECT 1"),
        )
    thread.join()
    wait_until_gone(rig)


def running(pid: str) -> bool:
    """Whether a process is there and no zombie that nobody has buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_password_stands_on_no_command_line(rig: Rig) -> None:
    """Everybody on the machine could read it there."""
    seen: list[str] = []

    class Looking(Cutting):
        def write(self, data: bytes) -> int:
            for one in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = one.read_text()
                except OSError:
                    continue
                if "psql" in words and "COPY (WITH period" in words:
                    seen.append(words)
            return len(data)

    context = rig.context()
    address = context.reader("shop")
    assert address.password
    freeze(
        address,
        context.database("shop"),
        population_of(rig, LARGE),
        third_quarter(),
        Looking(rig, ""),
    )
    assert seen
    assert not [one for one in seen if address.password in one]


def population_of(rig: Rig, sql: str) -> Population:
    rules = rig.pack.section(AUDIT)
    assert rules is not None
    return rules.populations[0].model_copy(update={"sql": sql})
