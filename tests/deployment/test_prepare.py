"""Test the init container with real servers: least privilege, Object Lock and repeated calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql

from include.deployment import layout
from include.deployment.prepare import Preparation, grant_pages
from include.local.postgres import EmbeddedPostgres
from include.registry import load_pack
from include.schema.drift import find_drift
from include.schema.live import read_schema
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.objectstore.s3 import S3Store, make_s3_client
from include.state.connect import engine
from include.state.migrate import migrate
from tests.support.s3 import start_moto

OURS = ("airflow", "celery_results", "parcelseal_state")


@pytest.fixture
def prepared(
    postgres: EmbeddedPostgres, deployed: Path, tmp_path: Path
) -> Iterator[tuple[Preparation, dict[str, str]]]:
    """Create the stack's databases and roles on a test server, and drop them after the test."""
    secrets = tmp_path / "secrets"
    shutil.copytree(deployed / "deploy" / "private", secrets)
    for host in (layout.POSTGRES, layout.SCRATCH):
        (secrets / f"{host}_superuser").write_text(postgres.password)
    here = {"host": str(postgres.socket_folder)}
    hosts = {layout.POSTGRES: here, layout.SCRATCH: here}
    work = Preparation(secrets, lambda _: None, hosts)
    work.databases()
    try:
        yield work, json.loads((secrets / "role_passwords.json").read_text())
    finally:
        with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
            for name in OURS:
                admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
            for host in (layout.POSTGRES, layout.SCRATCH):
                for role in layout.ROLES[host]:
                    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_database_role_can_connect_only_to_the_databases_that_it_needs(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """Each role can connect only to the databases that it needs."""
    work, passwords = prepared
    work.databases()  # a second time changes nothing, and fails at nothing
    may = {
        layout.AIRFLOW: {"airflow"},
        layout.RESULTS: {"celery_results"},
        layout.STATE: {"parcelseal_state"},
        layout.BACKUP_READER: {"airflow", "parcelseal_state"},
        layout.PAGES: {"parcelseal_state"},
        layout.DRILL: set(),
    }
    for role, allowed in may.items():
        for database in OURS:
            address = postgres.conninfo(database, role, passwords[role])
            if database in allowed:
                psycopg.connect(address).close()
            else:
                with pytest.raises(psycopg.OperationalError, match="permission denied"):
                    psycopg.connect(address)


def test_only_the_role_of_restore_drills_may_create_databases(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """No role is a superuser or can create roles.

    Only the role of restore drills creates databases.
    """
    del prepared
    with psycopg.connect(postgres.conninfo("postgres")) as admin:
        rows = admin.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls, "
            "rolcreatedb FROM pg_roles WHERE rolname = ANY(%s)",
            [[role for host in ("postgres", "scratch") for role in layout.ROLES[host]]],
        ).fetchall()
    assert len(rows) == 6
    assert {name for name, rules, _ in rows if rules} == set()
    assert {name for name, _, makes in rows if makes} == {layout.DRILL}


def test_backup_reader_reads_all_tables_and_cannot_write(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """The role can read tables that are created later."""
    _, passwords = prepared
    owner = postgres.conninfo("airflow", "airflow", passwords["airflow"])
    with psycopg.connect(owner) as airflow:
        airflow.execute("CREATE TABLE later AS SELECT 1 AS one")
    reader = postgres.conninfo("airflow", layout.BACKUP_READER, passwords[layout.BACKUP_READER])
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT one FROM later").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM later")


def test_pages_role_may_read_requests_and_insert_openings_and_has_no_other_right_on_use(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """The page *Use of information* reads no uploaded keys, data subjects and violations.

    The role that backs up the state database reads all of these tables.
    """
    _, passwords = prepared
    login = {"host": str(postgres.socket_folder), "dbname": layout.STATE, "user": layout.STATE}
    state = DatabaseAddress.from_parameters(login, passwords[layout.STATE])
    migrate(engine(state.conninfo()))
    grant_pages(state)
    rights = """
SELECT c.relname, array_agg(right_name ORDER BY right_name)
FROM pg_class c, unnest('{DELETE,INSERT,SELECT,TRUNCATE,UPDATE}'::text[]) right_name
WHERE c.relkind = 'r' AND c.relname ~ '^(use|access)_'
    AND has_table_privilege(%s, c.oid, right_name)
GROUP BY c.relname
"""
    with psycopg.connect(state.conninfo()) as connection:
        by_role = {
            role: dict(connection.execute(rights, [role]).fetchall())
            for role in (layout.PAGES, layout.BACKUP_READER)
        }
    assert by_role[layout.PAGES] == {
        "use_request": ["SELECT"],
        "use_request_run": ["SELECT"],
        "use_grant": ["SELECT"],
        "use_opening": ["INSERT", "SELECT"],
    }
    others = {"use_attempt", "use_request_key", "use_subject", "access_violation"}
    assert by_role[layout.BACKUP_READER].keys() > by_role[layout.PAGES].keys() | others


def test_buckets_for_backups_and_evidence_have_object_lock_and_a_second_call_raises_no_error(
    deployed: Path,
):
    """The preflight of a backup accepts the buckets."""
    server = start_moto()
    try:
        secrets = deployed / "deploy" / "private"
        work = Preparation(secrets, lambda _: None, {}, server.endpoint, "us-east-1")
        work.buckets()
        work.buckets()
        client = make_s3_client(server.endpoint, "us-east-1", "any", "any")
        for user in layout.LOCKABLE:
            assert list(S3Store(client, layout.BUCKETS[user]).preflight()) == []
        policy = json.loads(client.get_bucket_policy(Bucket=layout.BUCKETS["evidence"])["Policy"])
        (statement,) = policy["Statement"]
        assert not any("Put" in action or "Delete" in action for action in statement["Action"])
    finally:
        server.stop()


def test_data_map_of_state_database_does_not_differ_from_the_migrated_schema(
    migrated_database: str, deployed: Path
):
    """`check_quality` reports columns that the data map lacks.

    After a migration, draft the data map again: `./parcelseal config map --dsn ... --name
    parcelseal_state --out new`.
    """
    mapped = load_pack(deployed / "deploy" / "private" / "policy").database("parcelseal_state")
    with psycopg.connect(migrated_database) as connection:
        differences = find_drift(read_schema(connection), mapped, [])
    assert [str(difference) for difference in differences] == []


def test_modules_in_celery_settings_can_be_imported():
    """A worker does not start if an import fails."""
    from importlib import import_module

    name = "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS: "
    text = (ROOT / "docker-compose.yaml").read_text()
    lines = [line.strip() for line in text.splitlines()]
    paths = [line.split(": ")[1] for line in lines if line.startswith(name)]
    assert len(paths) == 2  # of all workers, and of those whose tasks check records
    for path in paths:
        module, _, attribute = path.rpartition(".")
        config = getattr(import_module(module), attribute)
        assert config["task_acks_late"] is True
        for imported in config["imports"]:
            import_module(imported)


def test_only_workers_of_the_default_queue_import_great_expectations(tmp_path: Path):
    """Other workers do not check records, and the import takes 150 MB of memory in each worker."""
    script = """
import sys
from importlib import import_module
from include.orchestration.workers import settings
def load(config):
    for name in config["imports"]:
        import_module(name)
    return "great_expectations" in sys.modules
print(load(settings.CONFIG), load(settings.CHECKING_CONFIG))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False True"  # Airflow prints before
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    name = "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS"
    checking = {
        service
        for service, content in services.items()
        if content.get("environment", {}).get(name, "").endswith("CHECKING_CONFIG")
    }
    assert checking == {"worker"}


def test_health_check_does_not_import_workflows():
    """The health check runs in each container every 30 seconds."""
    program = "import sys, include.deployment.health; print([m for m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "include.registry" not in done.stdout
    assert "sqlalchemy" not in done.stdout
