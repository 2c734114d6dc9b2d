"""Ways to end an execution in the middle: a real process that is killed, and lost connections."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from include.evidence.model import StepRecord
from tests.retention.rig import Rig

ROOT = Path(__file__).parents[2]


@contextmanager
def execution(
    rig: Rig, record: StepRecord, run: str = "r1", *, stage: str, number: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """An execution in a process of its own, that has come to a stage and waits there.

    The stages are those of `include.retention.work.Work.progress`; ``number`` says which arrival at
    one, from 1.
    """
    told = {
        "source": rig.source,
        "state": rig.state_source,
        "record": json.loads(record.model_dump_json()),
        "run": run,
        "stage": stage,
        "time": number,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.retention.child", json.dumps(told)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said == stage, f"the execution ended before {stage}: {said}"
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
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
        raise Killed

    def gone(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until the server has noticed, asked on another connection (autocommit)."""
        query = "SELECT FROM pg_stat_activity WHERE pid = ANY (%s)"
        until(lambda: connection.execute(query, [self.backends]).fetchone() is None)


@contextmanager
def watched() -> Iterator[Watched]:
    """Watch which connections are opened, by whomever in this process."""
    seen = Watched()
    connect = psycopg.connect

    def remembering(*args: Any, **more: Any) -> psycopg.Connection[Any]:
        made = connect(*args, **more)
        seen.connections.append(made)
        seen.backends.append(made.info.backend_pid)
        return made

    psycopg.connect = remembering  # type: ignore[assignment] # restored below
    try:
        yield seen
    finally:
        psycopg.connect = connect
