"""Ways to end an execution in the middle: a real process that is killed, and lost connections."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from sqlalchemy import Engine, event

from include.evidence.model import StepRecord
from tests.retention.rig import Rig
from tests.support.forking import Forked

ROOT = Path(__file__).parents[2]


@contextmanager
def execution(
    rig: Rig, record: StepRecord, run: str = "r1", *, stage: str, number: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """An execution in a process of its own, that has come to a stage and waits there.

    The stages are those of `ExecutionState.progress`; ``number`` says which arrival at one, from 1.
    """
    told = {
        "source": rig.source,
        "state": rig.state_source,
        "record": json.loads(record.model_dump_json()),
        "run": run,
        "stage": stage,
        "time": number,
    }
    process = Forked("tests.retention.child", json.dumps(told), cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said == stage, f"the execution ended before {stage}: {said}"
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until something is true and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found


def cut(connection: psycopg.Connection[Any]) -> None:
    """End a connection as a killed process does: the server sees its end, and nobody says goodbye.

    What was sent before is still carried out.
    """
    if connection.closed:
        return
    copy = socket.socket(fileno=os.dup(connection.pgconn.socket))
    try:
        copy.shutdown(socket.SHUT_RDWR)
    except OSError:  # the server went first
        pass
    finally:
        copy.close()


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code under test may catch it."""


@dataclass
class Watched:
    """The connections that were opened meanwhile."""

    connections: list[psycopg.Connection[Any]] = field(default_factory=list)
    backends: list[int] = field(default_factory=list)
    killed: bool = False

    def add(self, connection: psycopg.Connection[Any]) -> None:
        """Watch one more."""
        if connection not in self.connections:
            self.connections.append(connection)
            self.backends.append(connection.info.backend_pid)

    def kill(self, source: str, *, commit: bool = False) -> NoReturn:
        """End all of them at once, and the work with them.

        Args:
            source: connection string of the mapped database.
            commit: whether COMMIT was sent there just before.
        """
        if commit:
            name = psycopg.conninfo.conninfo_to_dict(source)["dbname"]
            for one in self.connections:
                if not one.closed and one.info.dbname == name:
                    one.pgconn.send_query(b"COMMIT")
                    one.pgconn.flush()
        for one in self.connections:
            cut(one)
        self.killed = True
        raise Killed

    def gone(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until the server has noticed, asked on another connection (autocommit)."""
        query = "SELECT FROM pg_stat_activity WHERE pid = ANY (%s)"
        until(lambda: connection.execute(query, [self.backends]).fetchone() is None)


@contextmanager
def watched(pool: Engine | None = None) -> Iterator[Watched]:
    """Watch which connections are opened, by whomever in this process.

    Those that an engine with a pool has already are watched too; a kill ends them all.
    """
    seen = Watched()
    connect = psycopg.connect

    def remembering(*args: Any, **more: Any) -> psycopg.Connection[Any]:
        made = connect(*args, **more)
        seen.add(made)
        return made

    def taken(made: psycopg.Connection[Any], *_: object) -> None:
        seen.add(made)

    psycopg.connect = remembering  # type: ignore[assignment] # restored below
    if pool is not None:
        event.listen(pool, "checkout", taken)
    try:
        yield seen
    finally:
        psycopg.connect = connect
        if pool is not None and seen.killed:
            pool.dispose()
        if pool is not None:
            event.remove(pool, "checkout", taken)
