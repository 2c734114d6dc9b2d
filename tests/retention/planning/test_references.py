"""Tests that referring records keep the referenced record, for each type of foreign key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


def test_referenced_record_is_deleted_if_a_column_of_the_composite_foreign_key_is_null(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parent (x int, y text, at date, PRIMARY KEY (y, x));
    CREATE TABLE child (id int PRIMARY KEY, at date, ax int, ay text, bx int, by text,
      FOREIGN KEY (ax, ay) REFERENCES parent (x, y), FOREIGN KEY (bx, by) REFERENCES parent (x, y));
    INSERT INTO parent SELECT i, 'k', '{OVER}' FROM generate_series(1, 5) i;
    INSERT INTO child VALUES (1, '{YOUNG}', 1, 'k', 2, 'k'), (2, '{OVER}', 3, 'k', 4, 'k'),
      (3, '{YOUNG}', 5, NULL, NULL, 'k');
    """)
    schema.rules = [rule("parent"), rule("child")]
    plan = schema.plan()
    assert {each.constraint: each.records for each in plan.of("parent").referred_by} == {
        "child_ax_ay_fkey": 1, "child_bx_by_fkey": 1,
    }  # fmt: skip
    assert schema.enforced() == {"parent": 3, "child": 1}
    assert schema.keys("parent", "x") == {1, 2}


@pytest.mark.parametrize("on_delete", ["NO ACTION", "RESTRICT", "CASCADE"])
@pytest.mark.parametrize("mapped", [True, False])
def test_referenced_record_is_kept_if_foreign_key_has_on_delete_no_action_restrict_or_cascade(
    schema: RetentionSchema, on_delete: str, mapped: bool
) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE {on_delete});
    INSERT INTO parent VALUES (1, '{OVER}'), (2, '{OVER}');
    INSERT INTO child VALUES (1, 1);
    """)
    schema.rules = [rule("parent")]
    if not mapped:
        schema.mapped = {"parent": "parent"}
    plan = schema.plan()
    (kept,) = plan.of("parent").referred_by
    assert (kept.table, kept.collection, kept.records) == (
        f"{schema.name}.child", "child" if mapped else None, 1,
    )  # fmt: skip
    counts = schema.execute(plan)
    assert counts.done == {"parent": 1}
    assert schema.keys("parent") == schema.keys("child") == {1}


@pytest.mark.parametrize("on_delete", ["SET NULL", "SET DEFAULT"])
def test_on_delete_set_null_keeps_referenced_record_only_if_referring_table_is_unmapped(
    schema: RetentionSchema, on_delete: str
) -> None:
    _nulled(schema, on_delete)
    schema.mapped = {"parent": "parent"}
    assert schema.planned() == {"parent": 1}
    assert schema.plan().of("parent").referred_by[0].collection is None
    schema.mapped = {}
    schema.enforced()
    assert schema.keys("parent") == set()
    assert schema.keys("child", "id, parent") == {(1, None)}


@pytest.mark.parametrize("kind", [HoldKind.DATABASE, HoldKind.CLASS, HoldKind.SUBJECT])
def test_foreign_key_column_of_record_on_legal_hold_is_not_set_to_null(
    schema: RetentionSchema, kind: HoldKind
) -> None:
    _nulled(schema, "SET NULL")
    schema.rules = [
        *schema.rules,
        rule("child", clock={"sql": "NULL::date"}, keys={"subject": "t.id"}),
    ]
    value = {HoldKind.DATABASE: schema.name, HoldKind.CLASS: "child", HoldKind.SUBJECT: "1"}[kind]
    schema.hold(kind, value)
    assert schema.enforced() == ({} if kind is HoldKind.DATABASE else {"parent": 1})
    assert schema.keys("child", "id, parent") == {(1, 1)}


def _nulled(schema: RetentionSchema, on_delete: str) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE {on_delete});
    INSERT INTO parent VALUES (1, '{OVER}'), (2, '{OVER}');
    INSERT INTO child VALUES (1, 1);
    """)
    schema.rules = [rule("parent")]


def test_foreign_key_columns_listed_under_detach_in_retention_yaml_are_set_to_null(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parent (x int, y int, at date, PRIMARY KEY (x, y));
    CREATE TABLE child (id int PRIMARY KEY, px int, py int, qx int, qy int,
      FOREIGN KEY (px, py) REFERENCES parent ON DELETE CASCADE,
      FOREIGN KEY (qx, qy) REFERENCES parent);
    INSERT INTO parent SELECT i, i, '{OVER}' FROM generate_series(1, 3) i;
    INSERT INTO child VALUES (1, 1, 1, NULL, NULL), (2, 2, 2, 3, 3);
    """)
    schema.rules = [rule("parent", detach=["child.px", "child.py"])]
    assert schema.enforced() == {"parent": 2}
    assert schema.keys("parent", "x") == {3}
    assert schema.keys("child", "id, px, py, qx, qy") == {
        (1, None, None, None, None), (2, None, None, 3, 3),
    }  # fmt: skip


def test_record_remains_without_reason_if_referring_record_can_be_detached_and_is_not_on_hold(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, who text, at date);
    INSERT INTO parent SELECT i, '{OVER}' FROM generate_series(1, 2) i;
    INSERT INTO child VALUES (1, 1, 'a', '{YOUNG}'), (2, 2, 'b', '{YOUNG}');
    """)
    schema.rules = [rule("parent", detach="child.parent"), rule("child", keys={"subject": "t.who"})]
    schema.hold(HoldKind.SUBJECT, "somebody")
    assert [(each.referred, each.unexplained) for each in schema.left()[0]] == [(0, 2), (0, 0)]
    schema.hold(HoldKind.SUBJECT, "a")
    assert [(each.referred, each.unexplained) for each in schema.left()[0]] == [(1, 1), (0, 0)]


def test_plan_fails_if_column_to_detach_has_not_null_constraint(schema: RetentionSchema) -> None:
    schema.run("""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent);
    """)
    schema.rules = [rule("parent", detach="child.parent")]
    with pytest.raises(UsageError, match=r"child\.parent cannot be set to null"):
        schema.plan()


def test_references_between_partitioned_tables_keep_referenced_records(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int, at date, part int, PRIMARY KEY (id, part))
      PARTITION BY LIST (part);
    CREATE TABLE parent1 PARTITION OF parent FOR VALUES IN (1);
    CREATE TABLE parent2 PARTITION OF parent FOR VALUES IN (2, 3) PARTITION BY RANGE (id);
    CREATE TABLE parent2a PARTITION OF parent2 FOR VALUES FROM (0) TO (10);
    CREATE TABLE parent2b PARTITION OF parent2 DEFAULT;
    CREATE TABLE child (id int, at date, pid int, part int, PRIMARY KEY (id),
      FOREIGN KEY (pid, part) REFERENCES parent) PARTITION BY HASH (id);
    CREATE TABLE child0 PARTITION OF child FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE child1 PARTITION OF child FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    INSERT INTO parent SELECT i, '{OVER}', i % 3 + 1 FROM generate_series(1, 30) i;
    INSERT INTO child SELECT i, CASE i % 2 WHEN 0 THEN date '{OVER}' ELSE '{YOUNG}' END, i,
      i % 3 + 1 FROM generate_series(1, 12) i;
    """)
    schema.rules = [rule("parent"), rule("child")]
    assert schema.enforced() == {"parent": 24, "child": 6}
    assert schema.keys("parent") == schema.keys("child") == {1, 3, 5, 7, 9, 11}


@pytest.mark.parametrize("detach", [(), ("child.pid",)])
def test_foreign_key_to_one_partition_keeps_only_the_referenced_record_in_that_partition(
    schema: RetentionSchema, detach: tuple[str, ...]
) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int, at date, part int, PRIMARY KEY (id, part))
      PARTITION BY LIST (part);
    CREATE TABLE parent1 PARTITION OF parent FOR VALUES IN (1);
    CREATE TABLE parent2 PARTITION OF parent FOR VALUES IN (2);
    ALTER TABLE parent1 ADD UNIQUE (id);
    CREATE TABLE child (id int PRIMARY KEY, at date, pid int REFERENCES parent1 (id));
    INSERT INTO parent VALUES (1, '{YOUNG}', 1), (1, '{OVER}', 2),
      (2, '{OVER}', 1), (2, '{OVER}', 2);
    INSERT INTO child VALUES (1, '{YOUNG}', 1), (2, '{YOUNG}', 2);
    """)
    schema.rules = [rule("parent", detach=detach)]
    assert schema.enforced() == {"parent": 3 if detach else 2}
    kept = {(1, 1)} if detach else {(1, 1), (2, 1)}
    assert schema.keys("parent", "id, part") == kept
    assert schema.keys("child", "id, pid") == {(1, 1), (2, None if detach else 2)}


def test_foreign_key_defined_on_one_partition_keeps_only_records_to_which_this_partition_refers(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int, part int, at date, pid int, PRIMARY KEY (id, part))
      PARTITION BY LIST (part);
    CREATE TABLE child1 PARTITION OF child FOR VALUES IN (1);
    CREATE TABLE child2 PARTITION OF child FOR VALUES IN (2);
    ALTER TABLE child1 ADD FOREIGN KEY (pid) REFERENCES parent;
    INSERT INTO parent VALUES (1, '{OVER}'), (2, '{OVER}'), (3, '{OVER}');
    INSERT INTO child VALUES (1, 1, '{YOUNG}', 1), (2, 2, '{YOUNG}', 2), (3, 1, '{OVER}', 3);
    """)
    schema.rules = [rule("parent"), rule("child")]
    assert schema.enforced() == {"parent": 2, "child": 1}
    assert schema.keys("parent") == {1}


@pytest.mark.parametrize("kind", ["parent", "child"])
def test_reference_between_partitions_keeps_record_only_if_the_referring_record_remains(
    schema: RetentionSchema, kind: str
) -> None:
    schema.run(f"""
    CREATE TABLE item (id int, part int, at date, up int, PRIMARY KEY (id, part))
      PARTITION BY LIST (part);
    CREATE TABLE item1 PARTITION OF item FOR VALUES IN (1);
    CREATE TABLE item2 PARTITION OF item FOR VALUES IN (2);
    ALTER TABLE item1 ADD UNIQUE (id);
    ALTER TABLE item2 ADD FOREIGN KEY (up) REFERENCES item1 (id);
    INSERT INTO item VALUES (1, 1, '{OVER}', NULL), (2, 1, '{OVER}', NULL),
      (1, 2, '{OVER}', 1), (2, 2, '{YOUNG if kind == "child" else OVER}', 2);
    """)
    schema.rules = [rule("item")]
    assert schema.enforced() == {"item": 2 if kind == "child" else 4}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("jsonb", ["""{"a": "%s {} é"}""", "1.50"]),
        ("uuid", ["5a9c5d0e-0000-4000-8000-000000000001", "5a9c5d0e-0000-4000-8000-000000000002"]),
        ("timestamptz", ["2026-03-01 08:00:00.000001+08", "2026-03-01 08:00+00"]),
        ("text", ["O'Neil %s {x} \\ \"", "订单 1"]),
        ("varchar(20)", ["a", "b"]),
        ("char(5)", ["a", "b"]),
        ("numeric", ["1.50", "1e30"]),
        ("bytea", [r"\x00ff", r"\xff"]),
        ("float8", ["0.1", "1e300"]),
        ("interval", ["1 mon", "30 days 00:00:01"]),
        ("inet", ["10.0.0.1/8", "::1"]),
        ("int[]", ["{1,2}", "{}"]),
        ("int4range", ["[1,3)", "empty"]),
        ("bit varying(9)", ["101", "1"]),
        ("money", ["1.50", "2"]),
        ("state", ["open", "closed %"]),
        ("plate", ["A-1", "B-2"]),
        ("pair", ["(1,x)", "(2,y)"]),
    ],
)
def test_record_is_deleted_and_entered_in_erasure_ledger_for_each_type_of_primary_key(
    schema: RetentionSchema, kind: str, values: list[str]
) -> None:
    schema.run(f"""
    CREATE TYPE state AS ENUM ('open', 'closed %');
    CREATE DOMAIN plate AS text CHECK (VALUE ~ '^[A-Z]');
    CREATE TYPE pair AS (a int, b text);
    CREATE TABLE parent (id {kind} PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, parent {kind} REFERENCES parent, at date);
    """)
    for number, value in enumerate(values):
        schema.connection.execute(
            f"INSERT INTO parent VALUES (%s::text::{kind}, '{OVER}')", [value]
        )
        schema.connection.execute(
            f"INSERT INTO child VALUES (%s, %s::text::{kind}, %s)",
            [number, value, (OVER, YOUNG)[number]],
        )
    schema.rules = [rule("parent"), rule("child")]
    assert schema.enforced() == {"parent": 1, "child": 1}


def test_referenced_record_is_kept_if_foreign_key_column_has_another_collation_or_integer_type(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE plain (id text COLLATE "C" PRIMARY KEY, at date);
    CREATE TABLE other (id int PRIMARY KEY, plain text COLLATE "POSIX" REFERENCES plain);
    CREATE TABLE number (id bigint PRIMARY KEY, at date);
    CREATE TABLE small (id int PRIMARY KEY, number smallint REFERENCES number);
    INSERT INTO plain VALUES ('abc', '{OVER}'), ('x', '{OVER}');
    INSERT INTO other VALUES (1, 'abc');
    INSERT INTO number VALUES (1, '{OVER}'), (2, '{OVER}');
    INSERT INTO small VALUES (1, 1);
    """)
    schema.rules = [rule("plain"), rule("number")]
    assert schema.enforced() == {"plain": 1, "number": 1}
    assert schema.keys("plain") == {"abc"}


def test_referenced_record_is_kept_if_foreign_key_uses_equality_operator_of_another_schema(
    schema: RetentionSchema,
) -> None:
    own = f'"{schema.name} ext % ""x"""'
    functions = "".join(
        f"CREATE FUNCTION {own}.{name}({own}.anycase, {own}.anycase) RETURNS {kind} IMMUTABLE "
        f"STRICT LANGUAGE sql AS $$ SELECT {body} $$;"
        f"CREATE OPERATOR {own}.{sign} (LEFTARG = {own}.anycase, RIGHTARG = {own}.anycase, "
        f"FUNCTION = {own}.{name});"
        for name, kind, sign, body in (
            ("lt", "bool", "<", "lower($1::text) < lower($2::text)"),
            ("le", "bool", "<=", "lower($1::text) <= lower($2::text)"),
            ("eq", "bool", "=", "lower($1::text) = lower($2::text)"),
            ("ge", "bool", ">=", "lower($1::text) >= lower($2::text)"),
            ("gt", "bool", ">", "lower($1::text) > lower($2::text)"),
        )
    )
    schema.run(f"""
    CREATE SCHEMA {own};
    CREATE TYPE {own}.anycase;
    CREATE FUNCTION {own}.i(cstring) RETURNS {own}.anycase LANGUAGE internal IMMUTABLE STRICT
      AS 'textin';
    CREATE FUNCTION {own}.o({own}.anycase) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT
      AS 'textout';
    CREATE TYPE {own}.anycase (INPUT = {own}.i, OUTPUT = {own}.o, LIKE = text, CATEGORY = 'S');
    CREATE CAST ({own}.anycase AS text) WITHOUT FUNCTION AS IMPLICIT;
    {functions}
    CREATE FUNCTION {own}.cmp({own}.anycase, {own}.anycase) RETURNS int LANGUAGE sql IMMUTABLE
      STRICT AS $$ SELECT btcasecmp FROM (SELECT CASE WHEN lower($1::text) < lower($2::text) THEN -1
      WHEN lower($1::text) > lower($2::text) THEN 1 ELSE 0 END AS btcasecmp) AS x $$;
    CREATE OPERATOR CLASS {own}.ops DEFAULT FOR TYPE {own}.anycase USING btree AS
      OPERATOR 1 {own}.<, OPERATOR 2 {own}.<=, OPERATOR 3 {own}.=, OPERATOR 4 {own}.>=,
      OPERATOR 5 {own}.>, FUNCTION 1 {own}.cmp({own}.anycase, {own}.anycase);
    CREATE TABLE parent (id {own}.anycase PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY, at date,
      parent {own}.anycase REFERENCES parent ON DELETE CASCADE);
    INSERT INTO parent VALUES ('abc', '{OVER}'), ('x', '{OVER}'), ('gone', '{OVER}');
    INSERT INTO child VALUES (1, '{YOUNG}', 'ABC'), (2, '{OVER}', 'GONE');
    """)
    schema.rules = [rule("parent"), rule("child")]
    assert schema.enforced() == {"parent": 2, "child": 1}
    assert schema.keys("parent", "id::text") == {"abc"}
    schema.run(f"SET client_min_messages = warning; DROP SCHEMA {own} CASCADE")


def test_referenced_record_is_kept_if_table_or_column_names_need_quotes_or_equal_sql_aliases(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE "Order ""x"" % {{}}" (t int, r text, s int, tab int, "客户 %s" int, c int, p int,
      tableoid_ int, at date, PRIMARY KEY (t, r, s, tab, "客户 %s"));
    CREATE TABLE "运单" (rec int PRIMARY KEY, at date, key int, t int, r text, s int, tab int,
      c int, up int REFERENCES "运单", e int,
      FOREIGN KEY (t, r, s, tab, c) REFERENCES "Order ""x"" % {{}}");
    INSERT INTO "Order ""x"" % {{}}" SELECT i, '%', i, i, i, i, i, i, '{OVER}'
      FROM generate_series(1, 3) i;
    INSERT INTO "运单" VALUES (1, '{OVER}', 1, 1, '%', 1, 1, 1, NULL, 1),
      (2, '{OVER}', 1, 2, '%', 2, 2, 2, 2, 1), (3, '{YOUNG}', 1, 3, '%', 3, 3, 3, 3, 1);
    """)
    first = 'Order "x" % {}'
    condition = """t.r LIKE '%' AND '%s {}' = '%s {}' AND t."客户 %s" % 1 = 0"""
    schema.rules = [
        rule(first, name="one", where=condition, keys={"subject": """'%s' || t."客户 %s" """}),
        rule("运单", name="two", suspended={"where": "t.rec % 5 = 1 AND 'a' NOT LIKE 'a%'",
             "title": {"en": "x", "zh-CN": "x"}}, detach=["运单.up"]),
    ]  # fmt: skip
    assert schema.enforced() == {"one": 2, "two": 2}
    assert schema.keys('"运单"', "rec") == {3}


def test_foreign_key_that_is_not_enforced_keeps_referenced_record(schema: RetentionSchema) -> None:
    schema.run(f"""
    CREATE TABLE parent (id int PRIMARY KEY, at date);
    CREATE TABLE child (id int PRIMARY KEY,
      parent int REFERENCES parent ON DELETE SET NULL NOT ENFORCED);
    INSERT INTO parent VALUES (1, '{OVER}'), (2, '{OVER}'); INSERT INTO child VALUES (1, 1);
    """)
    schema.rules = [rule("parent")]
    assert schema.enforced() == {"parent": 1}
    assert schema.keys("parent") == {1}


def test_unmasked_record_of_data_subject_counts_as_remaining_even_if_another_record_refers_to_it(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE person (id int PRIMARY KEY, at date, name text);
    CREATE TABLE parcel (id int PRIMARY KEY, person int REFERENCES person);
    INSERT INTO person VALUES (1, '{YOUNG}', 'Wang Fang'); INSERT INTO parcel VALUES (1, 1);
    """)
    person = {"mask": {"name": "name"}, "keys": {"subject": "t.id"}, "on_request": True}
    schema.rules = [rule("person", "mask", **person)]
    with schema.inspection() as seen:
        remaining = seen.count_records_of_subject("1")
    assert (remaining.records, remaining.unexplained) == (1, 1)
