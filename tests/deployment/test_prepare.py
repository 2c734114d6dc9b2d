"""What the init container does to real servers: least privilege, Object Lock, safe to repeat."""

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
from include.deployment.prepare import Preparation
from include.local.postgres import EmbeddedPostgres
from include.registry import load_pack
from include.schema.drift import drift
from include.schema.live import read_schema
from include.services.objectstore.s3 import S3Store, make_s3_client
from include.workplace import ROOT
from tests.support.s3 import start_moto

OURS = ("airflow", "celery_results", "parcelseal_state")


@pytest.fixture
def prepared(
    postgres: EmbeddedPostgres, deployed: Path, tmp_path: Path
) -> Iterator[tuple[Preparation, dict[str, str]]]:
    """Databases and roles of the stack on one server; everything is dropped afterwards."""
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


def test_each_role_gets_in_where_it_works_and_nowhere_else(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """Owners to their own, the reader of backups to two, the pages to the state, drills to none."""
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


def test_no_role_of_the_stack_rules_the_server(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """Nobody is a superuser or makes roles; drills alone make databases."""
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


def test_the_reader_of_backups_reads_and_writes_nothing(
    postgres: EmbeddedPostgres, prepared: tuple[Preparation, dict[str, str]]
):
    """Also of tables that a later version makes."""
    _, passwords = prepared
    owner = postgres.conninfo("airflow", "airflow", passwords["airflow"])
    with psycopg.connect(owner) as airflow:
        airflow.execute("CREATE TABLE later AS SELECT 1 AS one")
    reader = postgres.conninfo("airflow", layout.BACKUP_READER, passwords[layout.BACKUP_READER])
    with psycopg.connect(reader) as connection:
        assert connection.execute("SELECT one FROM later").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM later")


def test_buckets_are_made_with_object_lock_and_once(deployed: Path):
    """So that the preflight of a backup has nothing to say of them."""
    server = start_moto()
    try:
        secrets = deployed / "deploy" / "private"
        work = Preparation(secrets, lambda _: None, {}, server.endpoint, "us-east-1")
        work.buckets()
        work.buckets()
        client = make_s3_client(server.endpoint, "us-east-1", "any", "any")
        for bucket in layout.BUCKETS.values():
            assert list(S3Store(client, bucket).preflight()) == []
        policy = json.loads(client.get_bucket_policy(Bucket=layout.BUCKETS["evidence"])["Policy"])
        (statement,) = policy["Statement"]
        assert not any("Put" in one or "Delete" in one for one in statement["Action"])
    finally:
        server.stop()


def test_the_data_map_of_the_state_is_what_migrations_make(migrated_database: str, deployed: Path):
    """Else `check_quality` finds columns that nobody declared. Draft it anew after a migration:
    `./parcelseal config map --dsn ... --name parcelseal_state --out new`.
    """
    mapped = load_pack(deployed / "deploy" / "private" / "policy").database("parcelseal_state")
    with psycopg.connect(migrated_database) as connection:
        found = drift(read_schema(connection), mapped, [])
    assert [str(one) for one in found] == []


def test_celerys_settings_name_modules_that_can_be_imported():
    """A worker that cannot import one does not begin."""
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
    """Backups, drills and deletions check no records; each worker would keep 150 MB."""
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


def test_health_check_imports_no_workflow():
    """It runs in each container every half minute."""
    program = "import sys, include.deployment.health; print([m for m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "include.registry" not in done.stdout
    assert "sqlalchemy" not in done.stdout
