"""Test that primary keys and types read from an archive's head equal those of restored tables."""

from __future__ import annotations

from collections.abc import Callable

from include.backup.erasure_keys import _columns, _primary_keys, _types
from include.encryption.recipients import Recipient
from include.erasure.tables import TableName, column_types, key_columns, primary_key_types
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import take
from tests.support.holders import Holder

TABLES = r"""
CREATE SCHEMA "Sch ema"; CREATE TYPE "Sch ema"."Mo.od" AS ENUM ('a');
CREATE DOMAIN phone AS text;
CREATE TABLE "Sch ema"."Ta""b, 表" ("Ke'y, (x)" character varying(20) COLLATE "C" DEFAULT 'a, b)',
    extra text, "N r" smallint NOT NULL,
    PRIMARY KEY ("N r", "Ke'y, (x)") INCLUDE (extra));
CREATE TABLE many (a bigint GENERATED ALWAYS AS IDENTITY, b char(5), c timestamptz(3),
    d double precision, e numeric(10,2), f uuid, g "Sch ema"."Mo.od", h phone, i char, j date[],
    k timestamp without time zone DEFAULT now(), l interval, m varchar, n bytea,
    o int GENERATED ALWAYS AS (1) STORED, p text STORAGE EXTERNAL,
    PRIMARY KEY (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p));
CREATE TABLE parts (id int, at date, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE TABLE keyless (id int, moods "Sch ema"."Mo.od"[]);
"""


def test_primary_keys_read_from_archive_equal_those_of_database(
    new_database: Callable[..., DatabaseAddress],
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """The keys have columns of every type, with unusual names, and their order is kept."""
    origin = new_database(TABLES)
    _, archive = take(origin, store, recipients, signer).source(operations.opening).head()
    keys, columns = _primary_keys(archive), _columns(archive)
    with origin.connect() as connection:
        for table in columns:
            name = TableName(*table)
            expected = key_columns(connection, name)
            assert list(keys.get(table, ())) == expected
            assert _types(expected or (), columns[table]) == (
                primary_key_types(connection, name) or ""
            )
            for column in columns[table]:
                types = column_types(connection, name, [column])
                assert _types([column], columns[table]) == types, column
    assert len(columns) == 5
    assert len(columns["public", "many"]) == 16
