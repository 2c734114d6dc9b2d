"""Test that backups of each supported PostgreSQL version restore into this version and into 18."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.backup.compare import compare
from include.backup.drill import DrillTarget
from include.backup.restore import restore
from include.backup.scratch import without_event_triggers
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from include.services.programs import CLIENT_VARIABLE, program_folder
from tests.backup.drill_rig import Rig
from tests.backup.odd_database import ODD, OWNER
from tests.backup.support import SEEN, Taken, rows, run, take
from tests.backup.test_restore_command import BUYERS, CONNECT, PHONES, Restoring, erase, restored
from tests.support.holders import Holder
from tests.support.servers import EMBEDDED, Servers, each_version, programs_of

__all__ = ["restored"]

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
VERSION = "SELECT current_setting('server_version_num')::int / 10000"
OWNED = f"""
GRANT SELECT ON buyer TO {OWNER};
ALTER MATERIALIZED VIEW phones OWNER TO {OWNER};
CREATE TABLE event_log (tag text);
CREATE FUNCTION logged() RETURNS event_trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO public.event_log VALUES (tg_tag); END $$;
CREATE EVENT TRIGGER log_changes ON ddl_command_end EXECUTE FUNCTION logged();
"""
ACCESS = f"""
SELECT relname::text, relowner = '{OWNER}'::regrole, relacl::text LIKE '%{OWNER}=r/%'
FROM pg_class WHERE relname IN ('buyer', 'phones') ORDER BY 1
"""
RUNBOOK = "\n".join(
    (ROOT / "docs" / "how-to" / name).read_text()
    for name in ("restore-without-parcelseal.md", "restore-erase-again.md")
)
SHELL_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", RUNBOOK, re.DOTALL | re.MULTILINE)

Databases = Callable[[int], DatabaseAddress]
Points = Callable[[int], tuple[DatabaseAddress, Taken]]


@pytest.fixture(scope="module")
def databases(servers: Servers) -> Iterator[Databases]:
    """Return a function that creates a database on a server of a given version.

    The server also gets the role that the backups name.
    """
    created: list[DatabaseAddress] = []

    def create(version: int) -> DatabaseAddress:
        server = DatabaseAddress.from_conninfo(servers[version].conninfo("postgres"))
        address = server.with_database(f"v_{uuid.uuid4().hex[:12]}")
        with server.connect(autocommit=True) as admin:
            if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [OWNER]).fetchone():
                admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(OWNER)))
            statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0")
            admin.execute(statement.format(sql.Identifier(address.name)))
        created.append(address)
        return address

    yield create
    for address in created:
        with address.with_database("postgres").connect(autocommit=True) as admin:
            statement = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            admin.execute(statement.format(sql.Identifier(address.name)))


@pytest.fixture(scope="module")
def points(
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    recipients: list[Recipient],
    signer: Signer,
) -> Points:
    """Return a function that backs up the database of `odd_database`, once per server version."""
    taken: dict[int, tuple[DatabaseAddress, Taken]] = {}

    def point(version: int) -> tuple[DatabaseAddress, Taken]:
        if version not in taken:
            live = databases(version)
            run(live, ODD)
            store = DirectoryStore(tmp_path_factory.mktemp(f"store{version}"))
            taken[version] = live, take(live, store, recipients, signer, columns=[SEEN])
        return taken[version]

    return point


@pytest.fixture
def target(version: int, databases: Databases) -> DatabaseAddress:
    """Return an empty database on a server of the test's version."""
    return databases(version)


def counts(address: DatabaseAddress) -> dict[str, int]:
    """Return the number of rows of each table."""
    tables = rows(
        address,
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname !~ '^(pg_|information_schema)' ORDER BY 1",
    )
    return {
        str(name): int(str(rows(address, f"SELECT count(*) FROM ONLY {name}")[0][0]))
        for (name,) in tables
    }


@pytest.mark.parametrize("version", each_version())
def test_backup_is_restored_on_server_of_its_own_version(
    version: int, points: Points, target: DatabaseAddress, operations: Holder
) -> None:
    """Every row, definition and large object is restored, and no event trigger fired."""
    live, taken = points(version)
    assert rows(target, VERSION) == [(version,)]
    copy = without_event_triggers(target)
    source = taken.source(operations.opening)
    restored = restore(source, copy)
    assert (restored.differences, restored.rows) == ((), taken.manifest.rows)
    assert counts(copy) == counts(live)
    compared = compare(source, copy)
    assert (compared.different, compared.missing) == ((), ())
    definitions = compared.definitions
    assert (definitions.missing, definitions.added, definitions.changed) == ((), (), ())


@pytest.mark.parametrize("version", each_version(15, 16, 17))
def test_backup_of_older_server_version_is_restored_on_newest_version(
    version: int, points: Points, databases: Databases, operations: Holder
) -> None:
    """Only a view may differ: servers before 16 print the table name of each column."""
    live, taken = points(version)
    copy = without_event_triggers(databases(EMBEDDED))
    source = taken.source(operations.opening)
    assert restore(source, copy).differences == ()
    assert counts(copy) == counts(live)
    compared = compare(source, copy)
    assert (compared.different, compared.missing) == ((), ())
    definitions = compared.definitions
    assert (definitions.missing, definitions.added) == ((), ())
    assert definitions.changed == (("VIEW public.names",) if version == 15 else ())


@pytest.mark.parametrize("version", each_version(15, 16, 17))
def test_drill_passes_on_server_of_same_version(
    version: int, points: Points, state: Engine, operations: Holder
) -> None:
    live, taken = points(version)
    target = DrillTarget(live.with_database("postgres"))
    record = Rig(taken.source(operations.opening), target, target.server, live, state).drill()
    assert [(finding.code, finding.message) for finding in record.findings] == []
    assert record.outcome is Outcome.PASS
    assert record.data["compared"] == len(taken.manifest.tables)


@pytest.mark.parametrize("version", each_version(15, 16, 17))
def test_restore_command_replays_erasures_and_sets_owners(
    version: int,
    restored: Restoring,
    databases: Databases,
    state: Engine,
    target: DatabaseAddress,
) -> None:
    """The script of owners and grants, which pg_restore prints, also works for each version."""
    origin = databases(version)
    run(origin, BUYERS + OWNED)
    erase(state, "2")
    report = restored(origin=origin, owners=True)
    assert (report["matches_manifest"], report["opened"]) == (True, True)
    assert (report["tables"], report["rows"], report["erasures_replayed"]) == (2, 5, 1)
    assert rows(target, PHONES) == [(1,), (3,), (4,), (5,)]
    assert rows(target, ACCESS) == [("buyer", False, True), ("phones", True, None)]
    assert rows(target, "SELECT * FROM event_log") == []
    assert rows(target, CONNECT) == [(True,)]


@pytest.mark.parametrize("version", each_version(15))
def test_restore_command_with_into_existing_option_keeps_the_other_tables_of_the_target(
    version: int, restored: Restoring, databases: Databases, target: DatabaseAddress
) -> None:
    origin = databases(version)
    run(origin, BUYERS)
    run(target, "CREATE TABLE other (id int); INSERT INTO other VALUES (1)")
    assert restored(origin=origin, into_existing=True)["matches_manifest"] is True
    assert counts(target) == {"public.buyer": 5, "public.other": 1}


@pytest.mark.parametrize(
    ("newer", "version"),
    [
        pytest.param(newer, older, marks=[pytest.mark.postgres(newer), pytest.mark.postgres(older)])
        for newer, older in ((16, 15), (17, 16), (18, 17))
    ],
)
def test_restore_raises_usage_error_before_load_if_server_is_older_than_the_original(
    newer: int, version: int, points: Points, target: DatabaseAddress, operations: Holder
) -> None:
    _live, taken = points(newer)
    with pytest.raises(UsageError, match=f"{version}, and the backup is of PostgreSQL {newer}"):
        restore(taken.source(operations.opening), target)
    assert rows(target, TABLES) == [(0,)]


CONFLICTS = {
    "pre-data": ("CREATE TABLE waybill (a int)", 'relation "waybill" already exists', 1),
    "post-data": (
        "CREATE TABLE other (a int); CREATE INDEX scan_at_idx ON other (a)",
        'relation "scan_at_idx" already exists',
        2,
    ),
}


@pytest.mark.parametrize("version", each_version(15, 16))
@pytest.mark.parametrize("stage", CONFLICTS)
def test_restore_raises_service_error_at_first_error_that_is_not_tolerated(
    version: int, stage: str, points: Points, target: DatabaseAddress, operations: Holder
) -> None:
    """This also applies with several jobs.

    The message names this error, not the tolerated error.
    """
    conflict, message, jobs = CONFLICTS[stage]
    _live, taken = points(version)
    with pytest.raises(ServiceError, match=message):
        restore(
            taken.source(operations.opening),
            target,
            jobs=jobs,
            prepare=lambda _head, _entries: run(target, conflict),
        )


@pytest.mark.parametrize("version", each_version(15, 16, 17))
def test_shell_commands_of_runbook_restore_a_backup_on_each_server_version(
    version: int,
    points: Points,
    target: DatabaseAddress,
    operations: Holder,
    signer: Signer,
    tmp_path: Path,
) -> None:
    """The shell commands of the runbook run as printed."""
    _live, taken = points(version)
    files = {
        "KEY": operations.private_pem,
        "TRUSTED": signer.public_pem,
        "LEDGER": b"",
        "ERASURE_KEYS": json.dumps({"current": "1", "keys": {"1": "k" * 32}}).encode(),
    }
    variables = {name: str(tmp_path / name) for name in files}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    variables["POINT"] = f"{taken.store.description}/courier/{taken.manifest.id}"
    variables["TARGET"] = target.public_conninfo()
    first, *others = SHELL_BLOCKS
    for name, value in variables.items():
        first = re.sub(rf"^{name}=.*$", f'{name}="{value}"', first, flags=re.MULTILINE)
    path = f"{Path(sys.executable).parent}:{program_folder()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join([first, *others])],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path), "PGPASSWORD": target.password},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(taken.manifest.tables)} tables have the row counts of the manifest" in done.stdout


@pytest.mark.parametrize("version", each_version(15, 17))
def test_backup_and_restore_succeed_with_client_programs_of_the_version_of_the_server(
    version: int,
    points: Points,
    target: DatabaseAddress,
    operations: Holder,
    recipients: list[Recipient],
    signer: Signer,
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client programs of each version write the archive in another layout."""
    live, _taken = points(version)
    monkeypatch.setenv(CLIENT_VARIABLE, str(programs_of(version)))
    taken = take(live, store, recipients, signer)
    assert taken.manifest.tools["pg_dump"].startswith(f"{version}.")
    source = taken.source(operations.opening)
    copy = without_event_triggers(target)
    assert restore(source, copy).differences == ()
    compared = compare(source, copy)
    assert (compared.different, compared.missing) == ((), ())
    assert counts(copy) == counts(live)


@pytest.mark.parametrize("version", each_version(15, 17))
def test_backup_raises_usage_error_if_server_is_newer_than_client_programs(
    version: int,
    servers: Servers,
    recipients: list[Recipient],
    signer: Signer,
    store: DirectoryStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backup is refused before anything is stored. The error names suitable versions."""
    live = DatabaseAddress.from_conninfo(servers[EMBEDDED].conninfo("postgres"))
    monkeypatch.setenv(CLIENT_VARIABLE, str(programs_of(version)))
    with pytest.raises(UsageError, match=rf"PostgreSQL 18, but pg_dump {version}\S* only reads"):
        take(live, store, recipients, signer)
    assert list(store.list()) == []
