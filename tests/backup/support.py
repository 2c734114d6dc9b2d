"""Help the backup tests: a database with many features, its backup and its inspection."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup import operations
from include.backup.dump import take_backup
from include.backup.manifest import Manifest
from include.backup.operations import Operation
from include.backup.snapshot import NewestRecordColumn
from include.backup.source import Source
from include.encryption.recipients import OpeningKey, Recipient
from include.evidence.signing import Signer
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, NewestRecordField
from include.services.database import DatabaseAddress
from include.services.objectstore.base import ObjectStore
from include.services.programs import program

RICH = r"""
CREATE SCHEMA "Großes Schema";
CREATE SCHEMA "客户";
CREATE TYPE public.mood AS ENUM ('gut', 'so "la" la', '坏');
CREATE DOMAIN public.phone AS text CHECK (VALUE ~ '^\+?[0-9]+$');
CREATE TYPE public.place AS (street text, number int);
CREATE SEQUENCE public.waybill_number START 17 INCREMENT 3;
SELECT nextval('public.waybill_number'), nextval('public.waybill_number');

CREATE TABLE public.customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL, upper_name text GENERATED ALWAYS AS (upper(name)) STORED,
    feeling public.mood, phone public.phone, lives public.place, seen timestamptz NOT NULL,
    born date, bytes bytea, tags text[], extra jsonb, span tstzrange,
    referrer bigint REFERENCES public.customer (id)
);
INSERT INTO public.customer (name, feeling, phone, lives, seen, born, bytes, tags, extra, span,
                             referrer)
SELECT 'name ' || n || E'\t\\.\n\\\r' || chr(1), 'so "la" la'::public.mood, '+86' || n,
       ROW('街 ' || n, n)::public.place,
       timestamptz '2026-11-01 00:00+08' + n * interval '1 hour', date '1900-01-01',
       decode('00ff0a5c2e0a', 'hex'),
       ARRAY['a', NULL, '{"'], '{"k": "v"}'::jsonb, tstzrange(NULL, '2026-01-01+00'), NULL
FROM generate_series(1, 300) n;
UPDATE public.customer SET referrer = 301 - id;

CREATE TABLE "客户"."Ta""ble 表" ("Ke'y" text, "with space" int, "COLUMN" text,
    PRIMARY KEY ("Ke'y", "with space"));
INSERT INTO "客户"."Ta""ble 表" VALUES ('', 1, ''), (E'\\.', 2, NULL), ('\N', 3, E'\n\n\n');
CREATE TABLE "Großes Schema".empty (id int PRIMARY KEY);
CREATE TABLE "Großes Schema".lines (line text);
INSERT INTO "Großes Schema".lines VALUES (''), (''), (NULL), (E'\\.'), (''), (''), ('x');
CREATE TABLE "Großes Schema".no_columns ();
INSERT INTO "Großes Schema".no_columns DEFAULT VALUES;
INSERT INTO "Großes Schema".no_columns DEFAULT VALUES;

CREATE TABLE public.chicken (id int PRIMARY KEY, egg int);
CREATE TABLE public.egg (id int PRIMARY KEY, chicken int REFERENCES public.chicken);
INSERT INTO public.chicken SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO public.egg SELECT n, n FROM generate_series(1, 20) n;
ALTER TABLE public.chicken ADD FOREIGN KEY (egg) REFERENCES public.egg DEFERRABLE;

CREATE TABLE public.scan (id int, at timestamptz NOT NULL, note text) PARTITION BY RANGE (at);
CREATE TABLE public.scan_2025 PARTITION OF public.scan
    FOR VALUES FROM ('2025-01-01+00') TO ('2026-01-01+00');
CREATE TABLE public.scan_2026 PARTITION OF public.scan
    FOR VALUES FROM ('2026-01-01+00') TO ('2027-01-01+00') PARTITION BY LIST (id);
CREATE TABLE public.scan_2026_all PARTITION OF public.scan_2026 DEFAULT;
INSERT INTO public.scan SELECT n, '2026-03-01+00'::timestamptz + n * interval '1 min', NULL
FROM generate_series(1, 500) n;
CREATE INDEX ON public.scan (at);

CREATE TABLE public.animal (id int PRIMARY KEY, name text);
CREATE TABLE public.dog (bark text) INHERITS (public.animal);
INSERT INTO public.animal VALUES (1, 'cat');
INSERT INTO public.dog VALUES (1, 'rex', 'wau'), (2, 'bello', 'wuff');

CREATE UNLOGGED TABLE public.cache (k int, v text);
INSERT INTO public.cache SELECT n, repeat('v', 1000) FROM generate_series(1, 200) n;
CREATE TABLE public.photo (id int, content bytea);
ALTER TABLE public.photo ALTER content SET STORAGE EXTERNAL;
INSERT INTO public.photo SELECT n, (SELECT string_agg(sha512((n * 100000 + m)::text::bytea), '')
    FROM generate_series(1, 50000) m) FROM generate_series(1, 2) n;
INSERT INTO public.photo VALUES (3, '');
CREATE TABLE public.wide_row (id int, line text);
INSERT INTO public.wide_row SELECT 1, repeat('长', 1500000);

SELECT lo_from_bytea(0, sha512('one')), lo_from_bytea(0, ''),
       lo_from_bytea(0, (SELECT content FROM public.photo WHERE id = 1));

CREATE VIEW public.names AS SELECT id, name FROM public.customer;
CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM public.customer;
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the trigger must not fire while loading'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON public.egg FOR EACH ROW EXECUTE FUNCTION public.refuse();
CREATE RULE nothing AS ON INSERT TO public.cache DO INSTEAD NOTHING;
CREATE TABLE public.guarded (id int PRIMARY KEY, who text);
INSERT INTO public.guarded VALUES (1, 'a'), (2, 'b');
ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON public.guarded USING (who = current_user);
CREATE TABLE public.unchecked (id int);
INSERT INTO public.unchecked VALUES (99);
ALTER TABLE public.unchecked ADD CONSTRAINT old FOREIGN KEY (id) REFERENCES public.egg NOT VALID;
COMMENT ON TABLE public.unchecked IS 'it''s "odd"';
"""
SEEN = NewestRecordColumn("customer", "public", "customer", "seen")


@dataclass(frozen=True)
class Taken:
    """A published restore point."""

    store: ObjectStore
    manifest: Manifest

    def source(self, key: OpeningKey) -> Source:
        return Source(self.store, self.manifest, key)


def take(
    source: DatabaseAddress,
    store: ObjectStore,
    recipients: Sequence[Recipient],
    signer: Signer,
    *,
    database: str = "courier",
    columns: Sequence[NewestRecordColumn] = (),
    lock_until: datetime | None = None,
) -> Taken:
    """Take and publish a restore point.

    Args:
        source: database to back up.
        store: store of the restore point.
        recipients: recipients of the backup.
        signer: key that signs the manifest.
        database: name of the database in the data map.
        columns: columns whose newest value the manifest records.
        lock_until: end of the lock of all objects; None for no lock.
    """
    backup = take_backup(
        source,
        database,
        columns,
        store,
        recipients,
        expires_after=lambda moment: moment + timedelta(days=90),
    )
    manifests.publish(store, backup.manifest, signer, lock_until)
    return Taken(store, backup.manifest)


def begin(
    state: Engine, store: ObjectStore, point: str, operation: Operation = Operation.PUBLISH
) -> None:
    """Record that a run of this installation begins an operation on a restore point of courier.

    Args:
        state: state database.
        store: store of the restore point.
        point: id of the restore point.
        operation: whether the run publishes or removes the restore point.
    """
    at = datetime(2026, 11, 24, tzinfo=UTC)
    operations.begin_operation(
        state,
        store.description,
        "courier",
        point,
        operation,
        at,
        dag_id="backup_offsite",
        run_id="old",
    )


def pg_dump(address: DatabaseAddress, *words: str) -> bytes:
    return subprocess.run(
        [program("pg_dump"), *words, f"--dbname={address.public_conninfo()}"],
        check=True,
        capture_output=True,
        env=address.environment(),
    ).stdout


def rows(address: DatabaseAddress, query: str) -> list[tuple[object, ...]]:
    with address.connect() as conn:
        return conn.execute(query).fetchall()  # type: ignore[arg-type]


def run(address: DatabaseAddress, statements: str) -> None:
    with address.connect() as conn:
        conn.execute(statements)  # type: ignore[arg-type]


def mapped(
    *, rto: timedelta = timedelta(hours=4), name: str = "courier", **changes: object
) -> MappedDatabase:
    """Return a mapped database with the collections ``customer`` and ``waybill``.

    Args:
        rto: RTO of the database.
        name: name of the database in the data map.
        **changes: other fields of the database.
    """
    collections = {
        table: MappedCollection(name=table, schema_name="public", table=table, fields={})
        for table in ("customer", "waybill")
    }
    return MappedDatabase.model_validate(
        {
            "name": name,
            "title": verbatim(name.title()),
            "connection": "customer_db",
            "schema_name": "public",
            "site": "beijing",
            "rto": rto,
            "rpo": timedelta(hours=24),
            "newest": (NewestRecordField(collection="customer", field="seen"),),
            "collections": collections,
            **changes,
        }
    )
