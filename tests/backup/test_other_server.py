"""Databases of a distribution's server: drilled and restored on another, or refused in time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.backup.drill import DrillPlace
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import KEYS, Rig
from tests.backup.support import SEEN, take
from tests.support.holders import NOW, Holder
from tests.support.system_postgres import icu_server

COURIER = f"""
CREATE TABLE customer (id int PRIMARY KEY, name text, seen timestamptz);
CREATE TABLE waybill (id int PRIMARY KEY, customer int REFERENCES customer);
INSERT INTO customer SELECT n, 'name ' || n, '{NOW}' FROM generate_series(1, 9) n;
INSERT INTO waybill SELECT n, n FROM generate_series(1, 9) n;
"""


@pytest.fixture(scope="module")
def icu() -> Iterator[EmbeddedPostgres]:
    with icu_server() as server:
        yield server


@pytest.fixture(scope="module")
def new_original(icu: EmbeddedPostgres) -> Callable[..., DatabaseAddress]:
    """Make databases on the distribution's server."""

    def new(fill: str, options: str = "") -> DatabaseAddress:
        name = f"o_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(icu.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL(f"CREATE DATABASE {name} {options}"))  # type: ignore[arg-type]
        address = DatabaseAddress.from_conninfo(icu.conninfo(name))
        with address.connect() as conn:
            conn.execute(fill)  # type: ignore[arg-type]
        return address

    return new


@pytest.fixture
def new_rig(
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> Callable[..., Rig]:
    """Back a database up, and drill it on the embedded server unless another is given."""

    def new(original: DatabaseAddress, drill_server: DatabaseAddress = server) -> Rig:
        taken = take(original, store, recipients, signer, clocks=[SEEN])
        place = DrillPlace(drill_server, {original.name}, state, KEYS)
        return Rig(taken.source(operations.opening), place, drill_server, original)

    return new


def test_database_of_patched_server_is_drilled_on_unpatched_one(
    new_original: Callable[..., DatabaseAddress], new_rig: Callable[..., Rig]
) -> None:
    """Since November 2026 servers keep versions of columns, which an older pg_dump writes."""
    rig = new_rig(new_original(COURIER + "ALTER TABLE customer ALTER id SET (n_distinct = 5);"))
    record = rig.drill()
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["rows"] == 18
