"""Ways to end an execution in the middle: kill its process, or close its connections."""

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
from tests.retention.runner import RetentionRunner
from tests.support.forking import Forked

ROOT = Path(__file__).parents[2]


@contextmanager
def execution(
    runner: RetentionRunner, record: StepRecord, run: str = "r1", *, stage: str, number: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that executes a plan, and wait until it stops at a stage.

    The stages are those of `ExecutionState.progress`. The process stops when it reaches the stage
    for the ``number``-th time. The first time has the number 1.
    """
    arguments = {
        "source": runner.source,
        "state": runner.state_source,
        "record": json.loads(record.model_dump_json()),
        "run": run,
        "stage": stage,
        "time": number,
    }
    process = Forked(
        "tests.retention.child_process", json.dumps(arguments), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        reached = process.stdout.readline().strip()
        assert reached == stage, f"the execution ended before {stage}: {reached}"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """Wait until a condition returns a true value, and return this value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return value


def cut(connection: psycopg.Connection[Any]) -> None:
    """Shut down the socket of a connection, as happens when a process is killed.

    The server still executes statements that were sent before.
    """
    if connection.closed:
        return
    copy = socket.socket(fileno=os.dup(connection.pgconn.socket))
    try:
        copy.shutdown(socket.SHUT_RDWR)
    except OSError:  # the server closed it first
        pass
    finally:
        copy.close()


class Killed(BaseException):
    """Raised to simulate SIGKILL. The code under test must not catch it."""


@dataclass
class OpenConnections:
    """The connections that the process opened. A test can end all of them at once."""

    connections: list[psycopg.Connection[Any]] = field(default_factory=list)
    backends: list[int] = field(default_factory=list)
    killed: bool = False

    def add(self, connection: psycopg.Connection[Any]) -> None:
        """Record a connection that the process opened."""
        if connection not in self.connections:
            self.connections.append(connection)
            self.backends.append(connection.info.backend_pid)

    def kill(self, source: str, *, commit: bool = False) -> NoReturn:
        """End all connections at once, and raise `Killed`.

        Args:
            source: connection string of the mapped database.
            commit: whether to send COMMIT to the mapped database first.
        """
        if commit:
            name = psycopg.conninfo.conninfo_to_dict(source)["dbname"]
            for connection in self.connections:
                if not connection.closed and connection.info.dbname == name:
                    connection.pgconn.send_query(b"COMMIT")
                    connection.pgconn.flush()
        for connection in self.connections:
            cut(connection)
        self.killed = True
        raise Killed

    def wait_until_closed(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until the server has ended the sessions of all recorded connections.

        Args:
            connection: another connection, in autocommit.
        """
        query = "SELECT FROM pg_stat_activity WHERE pid = ANY (%s)"
        wait_until(lambda: connection.execute(query, [self.backends]).fetchone() is None)


@contextmanager
def record_connections(pool: Engine | None = None) -> Iterator[OpenConnections]:
    """Record the connections that this process opens or takes from a pool."""
    opened = OpenConnections()
    connect = psycopg.connect

    def connect_and_record(*args: Any, **options: Any) -> psycopg.Connection[Any]:
        connection = connect(*args, **options)
        opened.add(connection)
        return connection

    def record_checkout(connection: psycopg.Connection[Any], *_: object) -> None:
        opened.add(connection)

    psycopg.connect = connect_and_record  # type: ignore[assignment] # restored below
    if pool is not None:
        event.listen(pool, "checkout", record_checkout)
    try:
        yield opened
    finally:
        psycopg.connect = connect
        if pool is not None and opened.killed:
            pool.dispose()
        if pool is not None:
            event.remove(pool, "checkout", record_checkout)
