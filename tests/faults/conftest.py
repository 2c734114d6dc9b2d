"""Fixtures: a courier database of 46 MB with keys, an S3 server, and a fragile PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from include.encryption.recipients import new_pair
from include.evidence.signing import generate_key
from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.migrate import migrate
from include.state.tables import metadata
from tests.faults.support import Keys, Rig, StoreLocation, now
from tests.support.faulty_proxy import FaultyProxy
from tests.support.registers import emptying
from tests.support.s3 import MotoServer, client_for, new_bucket

# Text that hardly compresses, so that an upload has several parts of 16 MiB.
FILL = """
CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO customer SELECT n, '客户 ' || n FROM generate_series(1, 2000) n;
CREATE TABLE waybill (id int PRIMARY KEY, customer int REFERENCES customer, proof text NOT NULL);
INSERT INTO waybill SELECT n, 1 + n % 2000, (
    SELECT string_agg(encode(sha512((n * 100 + part)::text::bytea), 'hex'), '')
    FROM generate_series(1, {parts}) part
) FROM generate_series(1, {waybills}) n;
CREATE INDEX waybill_customer ON waybill (customer);
"""
SLOW_INDEX = """
CREATE FUNCTION public.slow(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    IF current_database() LIKE 'parcelseal_drill_%' THEN PERFORM pg_sleep(0.6); END IF;
    RETURN id;
END $$;
CREATE INDEX waybill_slow ON waybill (public.slow(id));
"""
EMPTY = emptying(metadata.tables)


def new_database(postgres: EmbeddedPostgres, fill: str = "") -> str:
    name = f"fault_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    if fill:
        with psycopg.connect(postgres.conninfo(name), autocommit=True) as conn:
            conn.execute(fill)
    return postgres.conninfo(name)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("operations", "escrow", "stranger"):
        private, certificate = new_pair(name, now(), bits=3072)
        (folder / f"{name}.key").write_bytes(private)
        (folder / f"{name}.crt").write_bytes(certificate)
    (folder / "seal.key").write_bytes(generate_key())
    return Keys(folder)


@pytest.fixture(scope="session")
def courier(postgres: EmbeddedPostgres) -> str:
    """Provide a database whose dump has 46 MB and whose restore point has 24 MB.

    Tests only read it.
    """
    return new_database(postgres, FILL.format(parts=40, waybills=9_000))


@pytest.fixture(scope="session")
def state_database(postgres: EmbeddedPostgres) -> str:
    conninfo = new_database(postgres)
    migrate(engine(conninfo))
    return conninfo


@pytest.fixture
def rig(courier: str, state_database: str, postgres: EmbeddedPostgres, keys: Keys) -> Rig:
    """Provide the large courier database with an empty state database."""
    with engine(state_database).begin() as conn:
        conn.exec_driver_sql(EMPTY)
    return Rig(courier, state_database, postgres.conninfo("postgres"), keys)


@pytest.fixture
def small(rig: Rig, postgres: EmbeddedPostgres) -> Iterator[Rig]:
    """Provide a courier database with a few rows, which a test may change."""
    conninfo = new_database(postgres, FILL.format(parts=2, waybills=50))
    yield Rig(conninfo, rig.state, rig.server, rig.keys)
    name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(rig.server, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def slow_to_index(small: Rig) -> Rig:
    """Provide the small courier database with an index whose restore takes 30 s."""
    with psycopg.connect(small.source, autocommit=True) as conn:
        conn.execute(SLOW_INDEX)
    return small


@pytest.fixture
def directory(tmp_path: Path) -> StoreLocation:
    (tmp_path / "store").mkdir()
    return StoreLocation("directory", str(tmp_path / "store"))


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto.endpoint) as faulty_proxy:
        yield faulty_proxy


@pytest.fixture
def s3(moto: MotoServer) -> StoreLocation:
    return StoreLocation("s3", moto.endpoint, new_bucket(client_for(moto.endpoint)))


@pytest.fixture
def s3_through_proxy(s3: StoreLocation, proxy: FaultyProxy) -> StoreLocation:
    """Provide the bucket of `s3` through the fixture `proxy`, which injects faults."""
    return StoreLocation("s3", proxy.endpoint, s3.bucket)


@pytest.fixture(params=["directory", "s3"])
def location(request: pytest.FixtureRequest) -> StoreLocation:
    """An empty store. The test runs once with a directory and once with S3."""
    store_location: StoreLocation = request.getfixturevalue(request.param)
    return store_location


@contextmanager
def tmpfs(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a temporary disk of a given size in MB. Skip the test if mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        pytest.skip("a disk of its own can only be mounted as root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk", 20) as folder:
        yield folder


@pytest.fixture(scope="session")
def fragile() -> Iterator[EmbeddedPostgres]:
    """Provide a separate database server that tests may restart and stop."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-fragile-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "pg", settings={"fsync": "off", "shared_buffers": "32MB"})
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cramped(fragile: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Provide the server of `fragile` with its databases on a disk of 75 MB.

    The server's log is on another disk.
    """
    fragile.stop()
    base, aside = fragile.data / "base", fragile.data / "base.aside"
    base.rename(aside)
    try:
        with tmpfs(base, 75):
            subprocess.run(["cp", "-a", f"{aside}/.", str(base)], check=True)
            shutil.copystat(aside, base)
            os.chown(base, aside.stat().st_uid, aside.stat().st_gid)
            fragile.start()
            yield fragile
            fragile.stop()
    finally:
        fragile.stop()
        base.rmdir()
        aside.rename(base)
        fragile.start()
