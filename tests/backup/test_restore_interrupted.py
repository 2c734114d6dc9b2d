"""Test that an interrupted `restore` names the copy that it leaves and how to drop it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import run, take
from tests.policy.packs import write_pack
from tests.support.forking import Forked
from tests.support.holders import Holder

# The restore builds an index with a function that waits; the original had a function that did not.
SLOW = """
CREATE TABLE buyer (id int PRIMARY KEY, phone text, seen_at timestamptz);
INSERT INTO buyer VALUES (1, '+86 139 0000 0001', now());
CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
CREATE INDEX slowly ON buyer (slow(id));
CREATE OR REPLACE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(300); RETURN 1; END $$;
"""
INDEXING = """
SELECT FROM pg_stat_activity WHERE datname = %s AND query LIKE 'CREATE INDEX%%' AND state = 'active'
"""
Command = Callable[..., subprocess.Popen[str]]


def connection(address: DatabaseAddress, **extra: object) -> str:
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": address.parameters["host"],
            "login": address.parameters["user"],
            "password": address.password,
            "schema": address.name,
            "extra": extra,
        }
    )


@pytest.fixture
def restore(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    migrated_database: str,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    tmp_path: Path,
) -> Iterator[Command]:
    """Return a function that starts the command `restore`, which builds an index for minutes."""
    origin = new_database(SLOW)
    take(origin, store, recipients, signer, database="shop")
    key, public = tmp_path / "operations.key", tmp_path / "evidence.pub"
    key.write_bytes(operations.private_pem)
    public.write_bytes(signer.public_pem)
    state = DatabaseAddress.from_conninfo(migrated_database)
    folder = {"path": str(tmp_path / "off site"), "site": "shanghai"}
    evidence = {"path": str(tmp_path), "trusted_keys": [str(public)]}
    environment = {
        "PATH": os.environ["PATH"],
        "PARCELSEAL_HOME": str(tmp_path / "home"),
        "PARCELSEAL_LOCAL_PROFILE": "off",
        "PARCELSEAL_POLICY": str(write_pack(tmp_path / "pack")),
        "AIRFLOW_CONN_CUSTOMER_DB": connection(origin),
        "AIRFLOW_CONN_STATE_DB": connection(
            state, erasure_keys={"current": "1", "keys": {"1": "k" * 32}}
        ),
        "AIRFLOW_CONN_OFFSITE_STORE": json.dumps({"conn_type": "fs", "extra": folder}),
        "AIRFLOW_CONN_EVIDENCE_STORE": json.dumps({"conn_type": "fs", "extra": evidence}),
    }
    words = ("restore", "--database", "shop", "--into", target.conninfo(), "--key", str(key))
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = Forked(
            "include.cli.app",
            *words,
            *options,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@contextmanager
def indexing(process: subprocess.Popen[str], target: DatabaseAddress) -> Iterator[None]:
    with psycopg.connect(target.conninfo(), autocommit=True) as watcher:
        while not watcher.execute(INDEXING, [target.name]).fetchall():
            if process.poll() is not None:
                raise AssertionError(process.communicate())
            time.sleep(0.05)
    yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_restore_and_next_restore_print_the_same_error_about_the_incomplete_copy(
    restore: Command, target: DatabaseAddress, number: signal.Signals
) -> None:
    process = restore()
    with indexing(process, target):
        process.send_signal(number)
    _printed, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    following = restore()
    _printed, refusal = following.communicate(timeout=60)
    assert following.returncode == 2
    error, advice = refusal.splitlines()[-2:]
    assert "has 1 tables and is closed" in error
    assert f'DROP DATABASE "{target.name}"' in advice
    assert [line for line in errors.splitlines() if line][-3:] == [error, advice, "interrupted"]


def test_interrupted_restore_into_database_with_tables_does_not_advise_to_drop_it(
    restore: Command, target: DatabaseAddress
) -> None:
    run(target, "CREATE TABLE other (id int)")
    process = restore("--into-existing")
    with indexing(process, target):
        process.terminate()
    _printed, errors = process.communicate(timeout=60)
    assert "The target had content before, and may hold part of the backup now." in errors
    assert "DROP" not in errors
