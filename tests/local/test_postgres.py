"""The embedded PostgreSQL starts, stops and is shared as the local profile promises."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres


def test_a_second_start_reuses_the_running_server(postgres: EmbeddedPostgres) -> None:
    """Starting twice neither fails nor restarts."""
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        before = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
    EmbeddedPostgres(postgres.folder).start()
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        assert connection.execute("SELECT pg_postmaster_start_time()").fetchone() == before


@pytest.mark.parametrize("extension", ["hstore", "citext", "pg_trgm", "btree_gist", "amcheck"])
def test_embedded_server_offers_common_extension(
    postgres: EmbeddedPostgres, extension: str
) -> None:
    """A default drill of a database that has it depends on this."""
    with psycopg.connect(postgres.conninfo("postgres")) as connection:
        query = "SELECT FROM pg_available_extensions WHERE name = %s"
        assert connection.execute(query, [extension]).fetchone() is not None


def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    """Nobody gets in without the password, not even over the local socket."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.conninfo("postgres", password="wrong"))


def test_the_server_outlives_one_user_and_stops_with_the_last() -> None:
    """A killed user does not count: the kernel gives up its lock."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-test-"))
    folder.chmod(0o755)
    mine = EmbeddedPostgres(folder / "pg")
    mine.start()
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
    mine.stop_if_unused()
    assert mine.running(), "another process still uses it"
    other.kill()
    other.wait()
    mine.stop_if_unused()
    assert not mine.running()


def test_start_after_an_interrupted_initdb_creates_the_cluster_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parts that initdb had written passed for a cluster, and every later start failed."""
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
