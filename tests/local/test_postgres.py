"""Tests of the embedded PostgreSQL: start, stop and sharing between processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres


def test_start_does_not_restart_a_postgres_server_that_is_already_running(
    postgres: EmbeddedPostgres,
) -> None:
    """A second start succeeds and does not restart the server."""
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        before = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    EmbeddedPostgres(postgres.folder).start()
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == before


@pytest.mark.parametrize("extension", ["hstore", "citext", "pg_trgm", "btree_gist", "amcheck"])
def test_common_extension_is_available_in_the_embedded_postgres_server(
    postgres: EmbeddedPostgres, extension: str
) -> None:
    """The restore drill of a database with such an extension needs the extension."""
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        query = "SELECT FROM pg_available_extensions WHERE name = %s"
        assert connection.execute(query, [extension]).fetchone() is not None


def test_connection_with_incorrect_password_fails_with_authentication_error(
    postgres: EmbeddedPostgres,
) -> None:
    """Even connections over the local Unix socket need the password."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.conninfo("postgres", password="wrong"))


def test_stop_if_unused_stops_the_server_only_if_no_other_process_uses_it() -> None:
    """The kernel releases the lock of a process that was killed."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-"))
    folder.chmod(0o755)
    own_server = EmbeddedPostgres(folder / "pg")
    own_server.start()
    code = (
        "import sys; from pathlib import Path; from include.local.postgres import EmbeddedPostgres;"
        "EmbeddedPostgres(Path(sys.argv[1])).start(); print('up', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "pg")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"up\n"
    own_server.stop_if_unused()
    assert own_server.is_running(), "another process still uses it"
    other.kill()
    other.wait()
    own_server.stop_if_unused()
    assert not own_server.is_running()


def test_start_creates_a_working_cluster_after_an_earlier_initdb_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a partial cluster were taken for a complete one, every later start would fail."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg")
    run = EmbeddedPostgres._run

    def interrupt_initdb(self: EmbeddedPostgres, name: str, *words: str, check: bool = True) -> Any:
        if name != "initdb":
            return run(self, name, *words, check=check)
        (Path(words[1]) / "PG_VERSION").write_text("18\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(EmbeddedPostgres, "_run", interrupt_initdb)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    try:
        server.start()
        with psycopg.connect(server.conninfo("postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert not list(server.folder.glob("data.new-*"))
    finally:
        server.stop()
