"""Tests of legal holds that name keys of each type.

Either a record is kept for every spelling of its key, or keys of the type are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.postgres.key_types import KeyType, UnusableKey
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule

TYPES = """
CREATE TYPE state AS ENUM ('lost', 'found');
CREATE DOMAIN uuids AS uuid;
CREATE DOMAIN codes AS char(6) CHECK (VALUE <> '');
CREATE DOMAIN amounts AS numeric(10, 2);
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN lists AS int[];
CREATE TYPE citext;
CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, LIKE = pg_catalog.text, CATEGORY = 'S');
"""
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
# type of the column, its key, another record's key, and the key as a person types it
TYPED = [
    ("text", "W-1", "w-1", "W-1"),
    ("varchar(8)", "运单-1", "运单-2", "运单-1"),
    ("name", "a", "b", "a"),
    ("char(9)", "W-1", "W-2", "W-1"),
    ("codes", "W-1", "W-2", "W-1"),
    ("citext", "Claim-A", "Claim-B", "claim-a"),
    ("state", "lost", "found", "lost"),
    ("uuid", UUID, UUID.replace("a0", "a1"), UUID.upper()),
    ("uuids", UUID, UUID.replace("a0", "a1"), UUID.replace("-", "")),
    ("smallint", "7", "8", "007"),
    ("bigint", "-7", "70", "-7"),
    ("numeric(10, 2)", "1", "1.01", "1"),
    ("numeric", "1.50", "1.501", "1.5"),
    ("amounts", "100", "10", "100.0"),
    ("date", "2026-01-02", "2026-01-03", "2026-01-02"),
    ("timestamp", "2026-01-02 03:04:05.5", "2026-01-02 03:04:05", "2026-01-02T03:04:05.500"),
    ("timestamptz", "2026-01-02 03:04:05Z", "2026-01-02 11:04:05Z", "2026-01-02T11:04:05+08:00"),
    ("bytea", r"\x0aff", r"\x0aFE", r"\x0AFF"),
    ("inet", "10.0.0.1", "10.0.0.2", "10.0.0.1/32"),
    ("inet", "10.0.0.4", "10.0.0.2", "10.0.0.4"),
    ("inet", "10.0.0.3/8", "10.0.0.3", "10.0.0.3/8"),
    ("inet", "2001:db8::1", "2001:db8::2", "2001:0DB8:0:0::1"),
    ("cidr", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/8"),
    ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04", "08002B-010203"),
    ("macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06", "0800.2b01.0203.0405"),
]
UNUSABLE = [
    "int[]", "text[]", "lists", "json", "jsonb", "xml", "pair", "boolean", "real", "float8",
    "money", "interval", "time", "bit(3)", "varbit", "point", "box", "int4range",
    "int4multirange", "tsvector", "tsquery", "pg_lsn", "jsonpath",
]  # fmt: skip


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres, TYPES) as created:
        yield created


def test_legal_hold_keeps_record_whose_key_is_spelled_differently_in_the_database(
    schema: RetentionSchema,
) -> None:
    """All other records are deleted.

    According to the independent count, the rest is on legal hold.
    """
    for at, (kind, held, other, typed) in enumerate(TYPED):
        schema.run(
            f"CREATE TABLE t{at} (id int PRIMARY KEY, at date, k {kind});"
            f"INSERT INTO t{at} VALUES (1, '{OVER}', '{held}'), (2, '{OVER}', '{other}'),"
            f"(3, '{OVER}', NULL)"
        )
        schema.hold(HoldKind.WAYBILL, typed)
    # Each class is searched for all values; values of another type must not disturb the search.
    schema.rules = [rule(f"t{at}", keys={"waybill": "t.k"}) for at in range(len(TYPED))]
    schema.enforced()
    left = {
        f"{kind} {typed}": schema.keys(f"t{at}") for at, (kind, _, _, typed) in enumerate(TYPED)
    }
    assert left == {name: {1} for name in left}
    assert {counts.held for counts in schema.left()[0]} == {1}


def test_legal_hold_by_composite_or_json_key_keeps_record(
    schema: RetentionSchema,
) -> None:
    """A composite key is one text, and a member of JSON is text."""
    schema.run(
        f"CREATE TABLE t (id int PRIMARY KEY, at date, a char(3), b int, doc jsonb);"
        f"INSERT INTO t VALUES (1, '{OVER}', 'x', 1, '{{}}'), (2, '{OVER}', 'x', 2, '{{}}'),"
        f"(3, '{OVER}', 'y', 1, '{{\"id\": \"7\"}}'), (4, '{OVER}', 'y', 2, '{{\"id\": 8}}')"
    )
    keys = {"waybill": ["t.a || '/' || t.b", "t.doc ->> 'id'"]}
    schema.rules = [rule("t", keys=keys)]
    for value in ("x/1", "7", "8"):
        schema.hold(HoldKind.WAYBILL, value)
    schema.enforced()
    assert schema.keys("t") == {1, 3, 4}


@pytest.mark.parametrize("kind", ["subject", "waybill", "case"])
def test_plan_raises_error_if_key_of_record_class_has_data_type_that_legal_holds_do_not_support(
    schema: RetentionSchema, kind: str
) -> None:
    """The error message lists the valid types."""
    for at, name in enumerate(UNUSABLE):
        schema.run(f"CREATE TABLE t{at} (id int PRIMARY KEY, at date, k {name})")
    for at, name in enumerate(UNUSABLE):
        schema.rules = [rule(f"t{at}", keys={kind: ["t.id", "t.k"]})]
        with pytest.raises(UnusableKey, match=f"a key of {kind} has the type") as caught:
            schema.plan()
        assert "char(n), citext, an enum, uuid" in (caught.value.action or ""), name


@pytest.mark.parametrize(
    ("key_type", "values"),
    [
        (KeyType("uuid", "uuid"), ["W-1", "", UUID[:-1]]),
        (KeyType("smallint", "int2"), ["32768", "1.5", "x", "１", "1_0"]),
        (KeyType("oid", "oid"), ["-1"]),
        (KeyType("numeric", "numeric"), ["x", "NaN", "Infinity", "１", "1_0", "1e131072"]),
        (KeyType("date", "date"), ["2026-02-30", "today", "2026-W01-1"]),
        (KeyType("timestamp", "timestamp"), ["2026-01-01T00:00+08:00", "x"]),
        (KeyType("timestamptz", "timestamptz"), ["2026-01-01T00:00", "x"]),
        (KeyType("bytea", "bytea"), [r"\x0", "a"]),
        (KeyType("inet", "inet"), ["10.0.0", "x"]),
        (KeyType("cidr", "cidr"), ["10.0.0.1/8"]),
        (KeyType("macaddr", "macaddr"), ["08:00:2b:01:02", "0g:00:2b:01:02:03"]),
        (KeyType("state", "enum", frozenset({"lost"})), ["LOST", "found"]),
        (KeyType("jsonb", None), ["1"]),
    ],
    ids=lambda value: value.title if isinstance(value, KeyType) else "",
)
def test_canonical_key_is_none_if_value_is_invalid_for_data_type_of_key(
    key_type: KeyType, values: list[str]
) -> None:
    assert [key_type.canonical(value) for value in values] == [None] * len(values)
