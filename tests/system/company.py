"""A small company for tests of the whole system: databases, stores, keys and a policy pack.

All parts are real: a PostgreSQL database that an application uses, the state database, an off-site
store, an evidence store and a server for drills. Only Airflow is left out: `tests.system.runs`
calls the functions behind its tasks.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from include.composition import build_services
from include.evidence.signing import generate_key
from include.local.postgres import EmbeddedPostgres
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from tests.support.holders import holder
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, client_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "courier"

# Keys are unique texts, so that a search for a key finds nothing else.
APPLICATION = """
CREATE TABLE address (
    id text PRIMARY KEY, street text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE customer (
    id text PRIMARY KEY, name text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    address_id text REFERENCES address);
CREATE TABLE parcel (
    number text PRIMARY KEY, customer_id text NOT NULL REFERENCES customer,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE customer_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id text NOT NULL, name text,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION keep_history() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO customer_history (customer_id, name) VALUES (OLD.id, OLD.name);
    RETURN NULL;
END $$;
"""
# Changes that an application makes in the course of time, each at most once.
RELEASES = {
    "history": """
        CREATE TRIGGER keep_history AFTER UPDATE OR DELETE ON customer
            FOR EACH ROW EXECUTE FUNCTION keep_history()""",
    "contacts": "CREATE MATERIALIZED VIEW contacts AS SELECT id, name FROM customer",
    "counts": """
        CREATE MATERIALIZED VIEW counts AS
            SELECT c.id, count(p.number) AS parcels
            FROM customer c LEFT JOIN parcel p ON p.customer_id = c.id GROUP BY c.id""",
    "names": "CREATE VIEW names AS SELECT id, name FROM customer",
    "scans": """
        CREATE TABLE scan (at timestamptz NOT NULL, station text) PARTITION BY RANGE (at);
        CREATE TABLE scan_default PARTITION OF scan DEFAULT""",
}

PACK = {
    "datamap/courier.yaml": """
        dataset:
          - fides_key: courier
            name: Courier
            meta:
              parcelseal:
                connection: customer_db
                schema: public
                site: beijing
            collections:
              - name: customer
                fields:
                  - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
                  - {name: name, data_categories: [user.name]}
                  - {name: created_at}
                  - {name: address_id}
              - name: address
                fields:
                  - {name: id, fides_meta: {primary_key: true}}
                  - {name: street, data_categories: [user.contact.address.street]}
                  - {name: created_at}
              - name: parcel
                fields:
                  - {name: number, fides_meta: {primary_key: true}}
                  - {name: customer_id, data_categories: [user.unique_id]}
                  - {name: created_at}
              - name: customer_history
                fields:
                  - {name: id, fides_meta: {primary_key: true}}
                  - {name: customer_id, data_categories: [user.unique_id]}
                  - {name: name, data_categories: [user.name]}
                  - {name: created_at}
        """,
    "backup.yaml": """
        keep: {daily: 1, weekly: 1, monthly: 1, floor: 1}
        expire_days: 90
        lock_days: 1
        """,
    "retention.yaml": """
        - class: parcel
          collection: parcel
          clock: created_at
          period: P2Y
          action: delete
          basis: business
          on_request: true
          keys: {subject: t.customer_id, waybill: t.number}
        - class: history
          collection: customer_history
          clock: created_at
          period: P2Y
          action: delete
          basis: business
          on_request: true
          keys: {subject: t.customer_id}
        - class: customer
          collection: customer
          clock: created_at
          period: P2Y
          action: delete
          basis: business
          on_request: true
          keys: {subject: t.id}
        - class: address
          collection: address
          clock: created_at
          period: P2Y
          action: delete
          basis: business
          on_request: true
          keys: {subject: "(SELECT c.id FROM customer c WHERE c.address_id = t.id)"}
        """,
}


def write_pack(folder: Path) -> Path:
    """Write the company's policy pack and return its folder."""
    for name, content in PACK.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(content))
    return folder


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server.

    Attributes:
        endpoint: URL of the server.
        name: name of the bucket.
    """

    endpoint: str
    name: str

    @property
    def client(self) -> S3Client:
        """An S3 client for the server."""
        return client_for(self.endpoint)


@dataclass
class Company:
    """A company.

    Attributes:
        admin: connection string of the server's superuser for the database ``postgres``.
        live: connection string of the application's database.
        state: connection string of the state database.
        folder: folder of keys, stores and policy pack.
        bucket: S3 bucket of the off-site store, with Object Lock; None for a directory without
            locks.
        services: services that ParcelSeal's tasks and commands use.
    """

    admin: str
    live: str
    state: str
    folder: Path
    bucket: Bucket | None = None
    services: Services = field(init=False)

    def __post_init__(self) -> None:
        self._connections = _connections(self)
        self.services = build_services(
            self.folder / "home",
            self.folder / "pack",
            self._connections.get,
            use_local_profile=False,
        )

    @property
    def offsite(self) -> ObjectStore:
        """The off-site store."""
        return self.services.store("offsite_store")

    @contextmanager
    def offsite_copied(self) -> Iterator[None]:
        """Copy the off-site store to a new directory, and use the copy during the block."""
        spec = self._connections["offsite_store"]
        with TemporaryDirectory(dir=self.folder) as folder:
            copy = DirectoryStore(Path(folder))
            for stored in self.offsite.list():
                copy.put(stored.key, self.offsite.get(stored.key))
            self._connections["offsite_store"] = replace(
                spec, conn_type="fs", extra={**spec.extra, "path": folder}
            )
            try:
                yield
            finally:
                self._connections["offsite_store"] = spec

    def run_sql(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement of the application on its database, and return the rows."""
        return query(self.live, statement, values)

    def run_on_state(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on the state database as its owner, and return the rows."""
        return query(self.state, statement)


def query(conninfo: str, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a statement in its own transaction, and return its rows, if it has any."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def relations_with(conninfo: str, text: str) -> dict[str, int]:
    """Return the tables and materialized views of a database that contain a text.

    Temporary tables are left out, because the server may not have dropped those of an ended
    session.

    Returns:
        The number of rows that contain the text, by table or view.
    """
    counts: dict[str, int] = {}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        relations = connection.execute(
            "SELECT n.nspname, c.relname"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE"
            " relkind IN ('r', 'm') AND relispopulated AND relpersistence <> 't'"
            " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        ).fetchall()
        for schema, name in relations:
            statement = sql.SQL("SELECT count(*) FROM {} t WHERE t::text LIKE %s").format(
                sql.Identifier(schema, name)
            )
            row = connection.execute(statement, [f"%{text}%"]).fetchone()
            if row and row[0]:
                counts[f"{schema}.{name}"] = row[0]
    return counts


def copy_database(admin: str, source: str, target: str) -> None:
    """Replace the target database by a copy of the source. Sessions in both databases are ended."""
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [source]
        )
        names = sql.Identifier(target), sql.Identifier(source)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(names[0]))
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(*names)
        )


def name_of(conninfo: str) -> str:
    """Return the database name in a connection string."""
    return DatabaseAddress.from_conninfo(conninfo).name


@contextmanager
def company(
    postgres: EmbeddedPostgres, state_template: str, folder: Path, bucket: Bucket | None = None
) -> Iterator[Company]:
    """Create a company, and drop its databases at the end.

    Args:
        postgres: server for all of its databases.
        state_template: name of a migrated state database.
        folder: an empty folder.
        bucket: empty bucket for the off-site store; None to use a directory.
    """
    admin = postgres.conninfo("postgres")
    names = [f"{kind}_{uuid.uuid4().hex[:10]}" for kind in ("live", "state")]
    copy_database(admin, "template1", names[0])
    copy_database(admin, state_template, names[1])
    write_pack(folder / "pack")
    for store in ("offsite", "evidence", "home"):
        (folder / store).mkdir()
    for name in ("operations", "offline"):
        (folder / f"{name}.crt").write_bytes(holder(name).certificate_pem)
    (folder / "operations.key").write_bytes(holder("operations").private_pem)
    (folder / "seal.key").write_bytes(generate_key())
    try:
        query(postgres.conninfo(names[0]), APPLICATION)
        live, state = (postgres.conninfo(name) for name in names)
        yield Company(admin, live, state, folder, bucket)
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            for name in names:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )


def _connections(owner: Company) -> dict[str, ConnectionSpec]:
    folder = owner.folder

    def database(conn_id: str, conninfo: str, **extra: Any) -> ConnectionSpec:
        address = DatabaseAddress.from_conninfo(conninfo)
        return ConnectionSpec(
            conn_id,
            "postgres",
            host=address.parameters["host"],
            port=int(address.parameters["port"]) if "port" in address.parameters else None,
            login=address.parameters["user"],
            password=address.password,
            schema=address.name,
            extra=extra,
        )

    recipients = [
        {"name": name, "certificate": str(folder / f"{name}.crt")}
        for name in ("operations", "offline")
    ]
    keys = {"current": "1", "keys": {"1": "k" * 32}}
    connections = (
        database("customer_db", owner.live),
        database("state_db", owner.state, erasure_keys=keys),
        database("drill_db", owner.admin, private_key=str(folder / "operations.key")),
        _offsite(owner, {"site": "shanghai", "recipients": recipients}),
        ConnectionSpec(
            "evidence_store",
            "fs",
            extra={"path": str(folder / "evidence"), "signing_key": str(folder / "seal.key")},
        ),
    )
    return {connection.conn_id: connection for connection in connections}


def _offsite(owner: Company, extra: dict[str, Any]) -> ConnectionSpec:
    if owner.bucket is None:
        extra = {"path": str(owner.folder / "offsite"), **extra}
        return ConnectionSpec("offsite_store", "fs", extra=extra)
    at = {"bucket": owner.bucket.name, "endpoint_url": owner.bucket.endpoint, "region_name": REGION}
    return ConnectionSpec(
        "offsite_store", "aws", login=ACCESS_KEY, password=SECRET_KEY, extra={**at, **extra}
    )
