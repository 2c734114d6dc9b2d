"""Tests that no plan is made if a table does not accept the masked values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule

COMMON = """
CREATE TYPE grade AS ENUM ('gold', 'plain');
CREATE DOMAIN digits AS text CHECK (VALUE ~ '^[0-9]+$');
CREATE DOMAIN name AS varchar(10) NOT NULL CHECK (length(VALUE) > 1);
CREATE TABLE parent (code text PRIMARY KEY);
INSERT INTO parent VALUES ('Wang Fang'), ('Li Na');
"""
TABLE = """
CREATE TABLE a (id int PRIMARY KEY, at date, other text, masked_at timestamptz, {columns});
INSERT INTO a (id, at, {names}) VALUES (1, '{over}', {first}), (2, '{over}', {second});
"""
PHONES = ("'13800138000'", "'13900139000'")


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres, COMMON) as created:
        yield created


def make(schema: RetentionSchema, columns: str, mask: str, stamp: str | None, *values: str) -> None:
    first, second = values or ("'Wang Fang'", "'Li Na'")
    names = "v" if values != ("",) else "other"
    schema.run(TABLE.format(columns=columns, names=names, over=OVER, first=first, second=second))
    schema.rules = [rule("a", "mask", mask={"v": mask}, stamp=stamp)]


@pytest.mark.parametrize(
    ("columns", "mask", "values", "reason"),
    [
        ("v grade", "name", ("'gold'", "'plain'"), "not of a text type"),
        ("v grade NOT NULL", "erase", ("'gold'", "'plain'"), "is NOT NULL and not of a text type"),
        ("v digits", "phone", PHONES, r"\(v\): its type .*digits refuses"),
        ("v text CHECK (v ~ '^[0-9]+$')", "phone", PHONES, "CHECK constraint a_v_check"),
        ("v text, CHECK (v IS NOT NULL OR other IS NOT NULL)", "erase", (), "constraint a_check"),
        ("v text NOT NULL UNIQUE", "erase", (), "unique index a_v_key"),
        ("v text, UNIQUE NULLS NOT DISTINCT (v)", "erase", (), "unique index a_v_key"),
        ("v text UNIQUE", "name", ("'Wang Fang'", "'Wang Li'"), "unique index a_v_key"),
        ("v text, EXCLUDE (v WITH =)", "name", (), None),
        ("v text REFERENCES parent", "name", (), "the foreign key a_v_fkey requires"),
        ("v text UNIQUE, up text REFERENCES a (v)", "name", (), "the foreign key a_up_fkey refers"),
        ("v bigint GENERATED ALWAYS AS IDENTITY", "erase", None, "generates its values"),
        ("v text GENERATED ALWAYS AS ('x' || id) STORED", "name", None, "generates its values"),
    ],
)  # fmt: skip
def test_plan_raises_usage_error_if_column_type_or_constraint_refuses_masked_values(
    schema: RetentionSchema,
    columns: str,
    mask: str,
    values: tuple[str, ...] | None,
    reason: str | None,
) -> None:
    if values is None:
        schema.run(TABLE.format(columns=columns, names="other", over=OVER, first="''", second="''"))
        schema.rules = [rule("a", "mask", mask={"v": mask})]
    else:
        make(schema, columns, mask, None, *values)
    if reason is None:
        assert schema.planned() == {"a": 2}
        return
    with pytest.raises(UsageError, match=f"The class a cannot .*{reason}") as raised:
        schema.plan()
    assert "Wang" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "mask", "values"),
    [
        ("v name", "name", ()),
        ("v varchar(2)", "name", ("'AB'", "'CD'")),
        ("v text UNIQUE", "erase", ()),
        ("v text UNIQUE", "name", ()),
        ("v grade", "erase", ("'gold'", "'plain'")),
        ("v text REFERENCES parent", "erase", ()),
        ("v text, UNIQUE (id, v)", "erase", ()),
        ("v text CHECK (v IS NULL OR v <> '')", "erase", ()),
    ],
)
def test_plan_contains_all_expired_records_if_columns_accept_masked_values(
    schema: RetentionSchema, columns: str, mask: str, values: tuple[str, ...]
) -> None:
    make(schema, columns, mask, "masked_at", *values)
    assert schema.planned() == {"a": 2}


def test_column_with_special_characters_in_its_name_is_masked(schema: RetentionSchema) -> None:
    """A column name may contain any character, even those of an assignment in SQL."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, "v = 100%" text);
    INSERT INTO a VALUES (1, '{OVER}', 'Wang Fang')
    """)
    schema.rules = [rule("a", "mask", mask={"v = 100%": "name"})]
    assert schema.execute(schema.plan()).done == {"a": 1}
    assert schema.keys("a", '"v = 100%"') == {"W**"}


@pytest.mark.parametrize("predicate", ["at IS NOT NULL", "v IS NOT NULL", "length(v) < 1"])
def test_plan_fails_if_masked_values_repeat_in_partial_unique_index(
    schema: RetentionSchema, predicate: str
) -> None:
    make(schema, "v text NOT NULL", "erase", None)
    schema.run(f"CREATE UNIQUE INDEX u ON a (v) WHERE {predicate}")
    with pytest.raises(UsageError, match="masked values repeat in the unique index u"):
        schema.plan()


@pytest.mark.parametrize(
    "index", ["(v) WHERE at IS NULL", "(v) WHERE v > ''", "(v, coalesce(other, id::text))"]
)
def test_records_are_masked_if_equal_masked_values_do_not_violate_unique_index(
    schema: RetentionSchema, index: str
) -> None:
    make(schema, "v text NOT NULL", "erase", None)
    schema.run(f"CREATE UNIQUE INDEX u ON a {index}")
    assert schema.execute(schema.plan()).done == {"a": 2}


@pytest.mark.parametrize(
    ("limit", "mask"),
    [
        ("v text, CHECK (other <> 'firm' OR v ~ '^[0-9]+$')", "phone"),
        ("v text NOT NULL, UNIQUE (v, other)", "erase"),
    ],
)
def test_plan_succeeds_if_mask_would_violate_constraint_only_for_records_outside_record_class(
    schema: RetentionSchema, limit: str, mask: str
) -> None:
    make(schema, limit, "erase", None)
    schema.run(
        "DELETE FROM a;"
        f"INSERT INTO a SELECT n, '{OVER}', 'firm', NULL, n FROM generate_series(1, 300) n;"
        f"INSERT INTO a SELECT n, '{OVER}', n, NULL, n FROM generate_series(301, 302) n;"
    )
    schema.rules = [rule("a", "mask", mask={"v": mask}, where="t.id > 300")]
    assert schema.execute(schema.plan()).done == {"a": 2}


def test_other_records_are_masked_if_check_constraint_refuses_masked_value_of_one_record(
    schema: RetentionSchema,
) -> None:
    check = "v text CHECK (v <> 'W**')"
    make(schema, check, "name", "masked_at", "'Wang Fang'", "'Li Na'")
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 1}, {("a", "23514"): 1})


@pytest.mark.parametrize(("kind", "fits"), [("date", True), ("text", False), ("int", False)])
def test_plan_raises_usage_error_if_column_for_time_of_masking_has_no_date_or_time_type(
    schema: RetentionSchema, kind: str, fits: bool
) -> None:
    make(schema, f"v text, stamp {kind}", "name", "stamp")
    if fits:
        assert schema.execute(schema.plan()).done == {"a": 2}
    else:
        with pytest.raises(UsageError, match=r"\(stamp\): its type cannot hold the moment"):
            schema.plan()
