"""Test PostgreSQL programs that read or write streams: input, output, exit code and end."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from include.services.database import DatabaseAddress
from include.services.programs import CLIENT_VARIABLE, MOST_LINES, ClientProgram

ADDRESS = DatabaseAddress.from_conninfo("postgresql://clerk:s3cret@db.example/orders")


@pytest.fixture
def psql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a script that replaces psql. Tests fill it."""
    script = tmp_path / "psql"
    script.touch(mode=0o755)
    monkeypatch.setenv(CLIENT_VARIABLE, str(tmp_path))
    return script


def test_database_password_is_in_environment_of_client_program_and_not_on_command_line(psql: Path):
    """Every user of a machine can read the command lines of its processes."""
    psql.write_text('#!/bin/sh\necho "$@"; echo "$PGPASSWORD"\n')
    with ClientProgram("psql", ["--quiet"], ADDRESS) as program:
        words, password = b"".join(program.pieces()).decode().splitlines()
        assert program.wait() == 0
    assert password == "s3cret"
    assert "s3cret" not in words


def test_program_that_prints_very_many_messages_ends_and_only_first_messages_are_kept(psql: Path):
    """A database function may raise more notices than fit into the buffer of a pipe."""
    lines = [
        "#!/bin/sh",
        "yes 'NOTICE:  00000' | head -n 50000 >&2",
        "printf 'ERROR:  42501\\nERROR:  57P01\\npsql: error: gone.\\n' >&2",
        "exit 3",
    ]
    psql.write_text("\n".join(lines))
    with ClientProgram("psql", []) as program:
        assert b"".join(program.pieces()) == b""
        assert program.wait() == 3
    assert len(program.lines) == MOST_LINES
    assert (program.sqlstate, program.last_error) == ("42501", "gone")


def test_feed_raises_no_error_if_program_stops_reading_its_input(psql: Path):
    """pg_restore stops reading when it has loaded the tables that it has to load."""
    psql.write_text("#!/bin/sh\nhead -c 3\n")
    with ClientProgram("psql", [], takes_input=True) as program:
        program.feed([b"abcdef", *[b"x" * 1024 * 1024] * 8])
        assert b"".join(program.pieces()) == b"abc"
        assert program.wait() == 0


def test_client_program_gets_sigint_if_an_error_is_raised_in_its_with_block(
    psql: Path, tmp_path: Path
):
    """After SIGINT, a program cancels the statement on its server. After SIGKILL, it could not."""
    mark = tmp_path / "mark"
    lines = [
        f"#!{sys.executable}",
        "import pathlib, time",
        "try:",
        "    print('ready', flush=True)",
        "    time.sleep(60)",
        "except KeyboardInterrupt:",
        f"    pathlib.Path({str(mark)!r}).write_text('int')",
    ]
    psql.write_text("\n".join(lines))
    started = time.monotonic()
    with ClientProgram("psql", []) as program:
        assert program.process.stdout is not None
        program.process.stdout.read(6)
        with pytest.raises(ValueError, match="later stage"), program.stopped_on_error():
            raise ValueError("a later stage failed")
        assert program.process.poll() is not None
    assert mark.read_text() == "int"
    assert time.monotonic() - started < 30


def test_client_program_is_ended_if_a_signal_interrupts_the_wait_for_it(psql: Path):
    """A command that is interrupted must not leave a program running."""
    psql.write_text("#!/bin/sh\nexec sleep 60\n")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with ClientProgram("psql", []) as program, pytest.raises(KeyboardInterrupt):
            program.wait()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert program.process.poll() is not None
