"""Test which error of pg_restore is tolerated on a server before PostgreSQL 17."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from include.backup.restore_program import RestoreProcess, RestoreTarget
from include.services.database import DatabaseAddress
from include.services.programs import CLIENT_VARIABLE

ADDRESS = DatabaseAddress({"dbname": "copy", "host": "/run/x"})
START = "pg_restore: error: "
UNKNOWN = (
    'could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"\n'
)
STATEMENT = "Command was: SET transaction_timeout = 0;\n"
TOLERATED = f"{START}{UNKNOWN}{STATEMENT}"
IN_GERMAN = f"{START}could not execute query: FEHLER:  »transaction_timeout«?\n{STATEMENT}"
OTHER = f'{START}could not execute query: ERROR:  relation "a" already exists\nCommand was: x;\n'
# Two workers write at once, each in three parts.
INTERLEAVED = f"pg_restore:pg_restore: error:  error: {UNKNOWN}{STATEMENT}{UNKNOWN}{STATEMENT}"
INTERLEAVED_LATER = f"{START}{START}{UNKNOWN}{STATEMENT}{UNKNOWN}{STATEMENT}"


def ignored(count: int) -> str:
    return f"pg_restore: warning: errors ignored on restore: {count}\n"


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file. A replacement of pg_restore writes its content to stderr and then fails."""
    path = tmp_path / "output"
    program = tmp_path / "pg_restore"
    lines = ["#!/bin/sh", f"cat {path} >&2", f"[ -e {path}.long ] && exec sleep 60", "exit 1"]
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    return path


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        (TOLERATED + ignored(1), 1),
        (IN_GERMAN + ignored(1), 1),
        (TOLERATED + "pg_restore: WARNING:  a warning of a function\n" + ignored(1), 1),
        (TOLERATED * 4 + ignored(2), 2),
        (TOLERATED + INTERLEAVED + TOLERATED + ignored(2), 2),
        (TOLERATED + INTERLEAVED_LATER + TOLERATED + ignored(2), 2),
    ],
)
def test_pg_restore_succeeds_if_its_only_error_is_unknown_transaction_timeout(
    output: Path, text: str, jobs: int
) -> None:
    output.write_text(text)
    process = RestoreProcess([], RestoreTarget(ADDRESS, knows_timeout=False), jobs=jobs)
    assert process.failure() is None


@pytest.mark.parametrize(
    ("text", "jobs", "message"),
    [
        (TOLERATED + OTHER + ignored(2), 1, 'relation "a" already exists'),
        (TOLERATED * 3 + OTHER + TOLERATED + ignored(3), 2, 'relation "a" already exists'),
        # An error among interleaved messages shows in the number only.
        (TOLERATED + INTERLEAVED + TOLERATED + ignored(3), 2, "3 statements failed"),
        (TOLERATED + ignored(2), 1, "2 statements failed"),
        (TOLERATED, 1, "no message"),  # it died
        (f"{START}{UNKNOWN}Command was: SELECT 1;\n" + ignored(1), 1, "unrecognized"),
        (f"{START}could not read from input file: end of file\n", 1, "end of file"),
    ],
)
def test_error_of_failed_pg_restore_contains_the_message_that_is_not_tolerated(
    output: Path, text: str, jobs: int, message: str
) -> None:
    output.write_text(text)
    process = RestoreProcess([], RestoreTarget(ADDRESS, knows_timeout=False), jobs=jobs)
    assert message in str(process.failure())


def test_unknown_transaction_timeout_error_of_pg_restore_is_not_tolerated_on_newer_server(
    output: Path,
) -> None:
    """A newer server knows the parameter, and pg_restore itself ends at its first error."""
    output.write_text(TOLERATED)
    failure = RestoreProcess([], RestoreTarget(ADDRESS)).failure()
    assert "unrecognized configuration parameter" in str(failure)


def test_pg_restore_is_ended_at_first_error_that_is_not_tolerated(output: Path) -> None:
    """Without --exit-on-error, pg_restore would continue with the next statement."""
    output.write_text(TOLERATED + OTHER)
    Path(f"{output}.long").touch()
    started = time.monotonic()
    process = RestoreProcess([], RestoreTarget(ADDRESS, knows_timeout=False))
    assert 'relation "a" already exists' in str(process.failure())
    assert time.monotonic() - started < 30


def test_pg_restore_is_ended_if_a_signal_interrupts_the_wait(output: Path) -> None:
    """pg_restore holds locks that would block the clean-up of the restore."""
    output.touch()
    Path(f"{output}.long").touch()
    process = RestoreProcess([], RestoreTarget(ADDRESS))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.failure()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert process.process.poll() is not None
