"""Tests that faults during the creation of an extract are reported and leave no object."""

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
from include.incident.evidence.extract import decrypt_extract
from include.incident.evidence.log_copy import LogQuery
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import UsageError
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.incident.evidence.extract_fixtures import (
    LOG,
    MAPPED,
    WIDE_WHOLE,
    Disturbed,
    create,
    plain,
    run,
)
from tests.incident.evidence.extract_stores import proxy, s3, source, store, wide
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.holders import NOW, Holder, offline, operations, recipients
from tests.support.s3 import client_for, unfinished_uploads

__all__ = ["offline", "operations", "proxy", "recipients", "s3", "source", "store", "wide"]

LATER = NOW.replace(microsecond=0) + timedelta(days=30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": ("access_id", "phone")}, "phone"),
        ({"at": "seen_at"}, "seen_at"),
        ({"account": "a.nobody"}, "nobody"),
        ({"account": "a.access_id); DROP TABLE access_log; --"}, "multiple commands|syntax"),
        ({"account": "1 / (a.access_id - 3)"}, "SQLSTATE 22012"),
        ({"collection": "wide_log"}, "employee_id"),
    ],
)
def test_error_about_invalid_sql_in_policy_pack_contains_its_location(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    changes: dict[str, Any],
    message: str,
):
    query = LogQuery(MAPPED, LOG.model_copy(update=changes), accounts=("E001",))
    with pytest.raises(UsageError, match=message) as refused:
        create(source, store, recipients, query)
    assert "incident.yaml, scope of courier, access" in refused.value.message
    assert not list(store.list())
    assert plain(source, "SELECT count(*) FROM access_log") == b"count\n12\n"


def test_error_for_sql_expression_that_fails_during_copy_contains_sqlstate(
    wide: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    run(
        wide,
        "CREATE OR REPLACE VIEW bad AS SELECT access_id, accessed_at,"
        " CASE access_id WHEN 11000 THEN purpose::numeric ELSE 0 END AS purpose FROM wide_log",
    )
    tables = {"bad": MAPPED.collections["wide_log"].model_copy(update={"table": "bad"})}
    database = MAPPED.model_copy(update={"collections": {**MAPPED.collections, **tables}})
    query = LogQuery(database, WIDE_WHOLE.log.model_copy(update={"collection": "bad"}))
    with pytest.raises(UsageError, match="SQLSTATE 22P02") as refused:
        create(wide, store, recipients, query)
    assert len(str(refused.value)) < 300
    assert not list(store.list())


def test_creation_of_extract_raises_usage_error_if_database_role_may_read_only_part_of_log(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    with psycopg.connect(source.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute("CREATE ROLE clerk_of_incidents LOGIN PASSWORD 'x'")
        try:
            conn.execute("GRANT SELECT (access_id, accessed_at) ON wide_log TO clerk_of_incidents")
            clerk = replace(source, password="x")
            clerk = replace(clerk, parameters={**source.parameters, "user": "clerk_of_incidents"})
            with pytest.raises(UsageError, match="may not read all of the log"):
                create(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("GRANT SELECT ON wide_log TO clerk_of_incidents")
            conn.execute("ALTER TABLE wide_log ENABLE ROW LEVEL SECURITY")
            with pytest.raises(UsageError, match="row-level security"):
                create(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            assert create(clerk, store, recipients, WIDE_WHOLE).rows >= 0
        finally:
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            conn.execute("DROP OWNED BY clerk_of_incidents")
            conn.execute("DROP ROLE clerk_of_incidents")


def test_creation_of_extract_without_recipients_raises_usage_error(
    source: DatabaseAddress, store: DirectoryStore
):
    with pytest.raises(UsageError, match="No recipient"):
        create(source, store, [])
    assert not list(store.list())
    assert not [child for child in psutil.Process().children() if child.name() == "psql"]


@pytest.mark.parametrize("application", ["psql", "all"])
def test_lost_database_connection_during_extract_raises_error_and_leaves_no_object(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], application: str
):
    def cut() -> None:
        with psycopg.connect(wide.with_database("postgres").conninfo(), autocommit=True) as conn:
            terminated = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND (query LIKE 'COPY%%' OR %s = 'all')",
                [wide.name, application],
            ).fetchall()
        assert len(terminated) == {"psql": 1, "all": 2}[application]

    with pytest.raises(DatabaseUnavailable, match=r"cut|lost") as lost:
        create(wide, Disturbed(tmp_path, 2_000_000, cut), recipients, WIDE_WHOLE)
    assert "1f40fc92da24169475" not in str(lost.value)
    store = DirectoryStore(tmp_path)
    assert not list(store.list())
    assert not list(tmp_path.rglob(".*.partial-*"))
    assert create(wide, store, recipients, WIDE_WHOLE).rows == 12_000


def test_failed_upload_of_extract_raises_store_error_and_leaves_no_object(
    wide: DatabaseAddress,
    proxy: FaultyProxy,
    s3: S3Store,
    recipients: list[Recipient],
    operations: Holder,
):
    proxy.rule = lambda request: (
        Fault(status=503, code="SlowDown") if request.method in {"PUT", "DELETE"} else None
    )
    try:
        with pytest.raises(StoreError):
            create(wide, s3, recipients, WIDE_WHOLE)
    finally:
        proxy.rule = lambda _: None
    client, bucket = client_for(proxy.endpoint), s3.description.removeprefix("s3://").split("/")[0]
    assert not list(s3.list())
    assert unfinished_uploads(client, bucket) == 1
    assert not [child for child in psutil.Process().children() if child.name() == "psql"]
    extract = create(wide, s3, recipients, WIDE_WHOLE, lock_until=LATER)
    assert unfinished_uploads(client, bucket) == 0
    assert extract.checksum.endswith("-2")  # two parts
    assert (
        sum(len(piece) for piece in decrypt_extract(s3, extract, operations.opening))
        == extract.bytes_csv
    )


def test_killed_process_leaves_no_object_and_no_psql_process(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], operations: Holder
):
    root = tmp_path / "store"
    root.mkdir()
    settings = {
        "root": str(root),
        "conninfo": wide.conninfo(),
        "certificate": operations.certificate_pem.decode(),
    }
    (tmp_path / "told.json").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "tests.incident.evidence.extract_fixtures",
        str(tmp_path / "told.json"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        helpers = psutil.Process(child.pid).children(recursive=True)
        assert [helper.name() for helper in helpers] == ["psql"]
        child.kill()
    with suppress(psutil.NoSuchProcess):
        helpers[0].wait(60)
    assert not helpers[0].is_running()
    store = DirectoryStore(root)
    assert not list(store.list())
    assert list(root.rglob(".*.partial-*"))
    assert create(wide, store, recipients, WIDE_WHOLE).rows == 12_000
    assert not list(root.rglob(".*.partial-*"))


def test_psql_command_line_contains_no_password_or_account(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient]
):
    command_lines: list[str] = []

    def read_command_line() -> None:
        (child,) = (child for child in psutil.Process().children() if child.name() == "psql")
        command_lines.append(" ".join(child.cmdline()))

    log = WIDE_WHOLE.log.model_copy(update={"account": "'E001'"})
    query = LogQuery(MAPPED, log, accounts=("E001",))
    create(wide, Disturbed(tmp_path, 1, read_command_line), recipients, query)
    assert wide.password not in command_lines[0]
    assert "E001" not in command_lines[0]
