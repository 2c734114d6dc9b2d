"""What keeps an extract from being made: it is named, and nothing is left or shown by half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from include.encryption.recipients import Recipient
from include.incident.evidence.extract import opened
from include.incident.evidence.log_copy import LogQuery
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import UsageError
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.incident.evidence.extract_places import proxy, s3, source, store, wide
from tests.incident.evidence.extract_rig import LOG, MAPPED, WIDE_WHOLE, Disturbed, made, plain, run
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.holders import NOW, Holder, offline, operations, recipients
from tests.support.s3 import client_for, unfinished_uploads

__all__ = ["offline", "operations", "proxy", "recipients", "s3", "source", "store", "wide"]

LATER = NOW.replace(microsecond=0) + timedelta(days=30)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": ("access_id", "phone")}, "phone"),
        ({"at": "seen_at"}, "seen_at"),
        ({"account": "a.nobody"}, "nobody"),
        ({"account": "a.access_id); DROP TABLE access_log; --"}, "multiple commands|syntax"),
        ({"account": "1 / (a.access_id - 3)"}, "SQLSTATE 22012"),
        ({"collection": "wide_log"}, "employee_id"),
    ],
)
def test_a_pack_that_does_not_fit_is_named(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    changes: dict[str, Any],
    said: str,
):
    """With the place in incident.yaml and what is wrong there; nothing is stored."""
    query = LogQuery(MAPPED, LOG.model_copy(update=changes), accounts=("E001",))
    with pytest.raises(UsageError, match=said) as refused:
        made(source, store, recipients, query)
    assert "incident.yaml, scope of courier, access" in refused.value.message
    assert not list(store.list())
    assert plain(source, "SELECT count(*) FROM access_log") == b"count\n12\n"


def test_an_expression_that_fails_in_the_midst_is_named(
    wide: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """Also where only the copy meets the row; the value is not repeated."""
    run(
        wide,
        "CREATE OR REPLACE VIEW bad AS SELECT access_id, accessed_at,"
        " CASE access_id WHEN 11000 THEN purpose::numeric ELSE 0 END AS purpose FROM wide_log",
    )
    tables = {"bad": MAPPED.collections["wide_log"].model_copy(update={"table": "bad"})}
    database = MAPPED.model_copy(update={"collections": {**MAPPED.collections, **tables}})
    query = LogQuery(database, WIDE_WHOLE.log.model_copy(update={"collection": "bad"}))
    with pytest.raises(UsageError, match="SQLSTATE 22P02") as refused:
        made(wide, store, recipients, query)
    assert len(str(refused.value)) < 300
    assert not list(store.list())


def test_a_role_that_may_not_see_all_is_refused(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """Neither without the right to a column nor where row-level security would hide rows."""
    with psycopg.connect(source.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute("CREATE ROLE clerk_of_incidents LOGIN PASSWORD 'x'")
        try:
            conn.execute("GRANT SELECT (access_id, accessed_at) ON wide_log TO clerk_of_incidents")
            clerk = replace(source, password="x")
            clerk = replace(clerk, parameters={**source.parameters, "user": "clerk_of_incidents"})
            with pytest.raises(UsageError, match="may not read all of the log"):
                made(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("GRANT SELECT ON wide_log TO clerk_of_incidents")
            conn.execute("ALTER TABLE wide_log ENABLE ROW LEVEL SECURITY")
            with pytest.raises(UsageError, match="row-level security"):
                made(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            assert made(clerk, store, recipients, WIDE_WHOLE).rows >= 0
        finally:
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            conn.execute("DROP OWNED BY clerk_of_incidents")
            conn.execute("DROP ROLE clerk_of_incidents")


def test_without_recipients_nothing_is_copied(source: DatabaseAddress, store: DirectoryStore):
    """Nobody could open it."""
    with pytest.raises(UsageError, match="no recipient"):
        made(source, store, [])
    assert not list(store.list())
    assert not [one for one in psutil.Process().children() if one.name() == "psql"]


@pytest.mark.parametrize("application", ["psql", "all"])
def test_a_database_that_is_lost_in_the_midst_leaves_nothing(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], application: str
):
    """Whether the copy alone is cut or the server goes; the next attempt is whole."""

    def cut() -> None:
        with psycopg.connect(wide.with_database("postgres").conninfo(), autocommit=True) as conn:
            done = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND (query LIKE 'COPY%%' OR %s = 'all')",
                [wide.name, application],
            ).fetchall()
        assert len(done) == {"psql": 1, "all": 2}[application]

    with pytest.raises(DatabaseUnavailable, match=r"cut|lost") as lost:
        made(wide, Disturbed(tmp_path, 2_000_000, cut), recipients, WIDE_WHOLE)
    assert "1f40fc92da24169475" not in str(lost.value)
    store = DirectoryStore(tmp_path)
    assert not list(store.list())
    assert not list(tmp_path.rglob(".*.partial-*"))
    assert made(wide, store, recipients, WIDE_WHOLE).rows == 12_000


def test_a_store_that_goes_down_in_the_midst_shows_nothing(
    wide: DatabaseAddress,
    proxy: FaultyProxy,
    s3: S3Store,
    recipients: list[Recipient],
    operations: Holder,
):
    """Its upload is cleared by the next attempt, which is whole, of several parts."""
    proxy.rule = lambda request: (
        Fault(status=503, code="SlowDown") if request.method in {"PUT", "DELETE"} else None
    )
    try:
        with pytest.raises(StoreError):
            made(wide, s3, recipients, WIDE_WHOLE)
    finally:
        proxy.rule = lambda _: None
    client, bucket = client_for(proxy.endpoint), s3.description.removeprefix("s3://").split("/")[0]
    assert not list(s3.list())
    assert unfinished_uploads(client, bucket) == 1
    assert not [one for one in psutil.Process().children() if one.name() == "psql"]
    one = made(wide, s3, recipients, WIDE_WHOLE, lock_until=LATER)
    assert unfinished_uploads(client, bucket) == 0
    assert one.checksum.endswith("-2")  # two parts
    assert sum(len(piece) for piece in opened(s3, one, operations.opening)) == one.bytes_csv


def test_a_killed_extract_leaves_nothing_and_nobody(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], operations: Holder
):
    """No psql works on, nothing is listed, and the next attempt clears what lies there."""
    root = tmp_path / "store"
    root.mkdir()
    told = {
        "root": str(root),
        "conninfo": wide.conninfo(),
        "certificate": operations.certificate_pem.decode(),
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    words = [
        sys.executable,
        "-m",
        "tests.incident.evidence.extract_rig",
        str(tmp_path / "told.json"),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        helpers = psutil.Process(child.pid).children(recursive=True)
        assert [one.name() for one in helpers] == ["psql"]
        child.kill()
    with suppress(psutil.NoSuchProcess):
        helpers[0].wait(60)
    assert not helpers[0].is_running()
    store = DirectoryStore(root)
    assert not list(store.list())
    assert list(root.rglob(".*.partial-*"))
    assert made(wide, store, recipients, WIDE_WHOLE).rows == 12_000
    assert not list(root.rglob(".*.partial-*"))


def test_the_password_and_the_accounts_are_on_no_command_line(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient]
):
    """Everybody on the machine can read those."""
    seen: list[str] = []

    def look() -> None:
        (child,) = (one for one in psutil.Process().children() if one.name() == "psql")
        seen.append(" ".join(child.cmdline()))

    log = WIDE_WHOLE.log.model_copy(update={"account": "'E001'"})
    query = LogQuery(MAPPED, log, accounts=("E001",))
    made(wide, Disturbed(tmp_path, 1, look), recipients, query)
    assert wide.password not in seen[0]
    assert "E001" not in seen[0]
