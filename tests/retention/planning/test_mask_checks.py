"""A mask that the table refuses is refused when the plan is made, with class, column and reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.services.errors import UsageError
from tests.retention.yard import OVER, Yard, rule, yard

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
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, COMMON) as made:
        yield made


def make(place: Yard, columns: str, mask: str, stamp: str | None, *values: str) -> None:
    first, second = values or ("'Wang Fang'", "'Li Na'")
    names = "v" if values != ("",) else "other"
    place.run(TABLE.format(columns=columns, names=names, over=OVER, first=first, second=second))
    place.rules = [rule("a", "mask", mask={"v": mask}, stamp=stamp)]


@pytest.mark.parametrize(
    ("columns", "mask", "values", "reason"),
    [
        ("v grade", "name", ("'gold'", "'plain'"), "is no text"),
        ("v grade NOT NULL", "erase", ("'gold'", "'plain'"), "must not be null and is no text"),
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
def test_plan_refuses_a_mask_that_the_table_refuses(
    place: Yard, columns: str, mask: str, values: tuple[str, ...] | None, reason: str | None
) -> None:
    """No record of any class has been erased by then."""
    if values is None:
        place.run(TABLE.format(columns=columns, names="other", over=OVER, first="''", second="''"))
        place.rules = [rule("a", "mask", mask={"v": mask})]
    else:
        make(place, columns, mask, None, *values)
    if reason is None:
        assert place.planned() == {"a": 2}
        return
    with pytest.raises(UsageError, match=f"The class a cannot .*{reason}") as raised:
        place.plan()
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
def test_masks_that_fit_are_planned(
    place: Yard, columns: str, mask: str, values: tuple[str, ...]
) -> None:
    make(place, columns, mask, "masked_at", *values)
    assert place.planned() == {"a": 2}


def test_mask_of_a_column_with_an_odd_name_is_planned(place: Yard) -> None:
    """The catalogue's names may hold any character, also those of an assignment."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, "v = 100%" text);
    INSERT INTO a VALUES (1, '{OVER}', 'Wang Fang')
    """)
    place.rules = [rule("a", "mask", mask={"v = 100%": "name"})]
    assert place.execute(place.plan()).done == {"a": 1}
    assert place.keys("a", '"v = 100%"') == {"W**"}


@pytest.mark.parametrize("predicate", ["at IS NOT NULL", "v IS NOT NULL", "length(v) < 1"])
def test_plan_refuses_a_mask_that_repeats_in_a_partial_unique_index(
    place: Yard, predicate: str
) -> None:
    """An index of the records that an application has not deleted, for one."""
    make(place, "v text NOT NULL", "erase", None)
    place.run(f"CREATE UNIQUE INDEX u ON a (v) WHERE {predicate}")
    with pytest.raises(UsageError, match="masked values repeat in the unique index u"):
        place.plan()


@pytest.mark.parametrize(
    "index", ["(v) WHERE at IS NULL", "(v) WHERE v > ''", "(v, coalesce(other, id::text))"]
)
def test_mask_that_repeats_outside_of_a_unique_index_is_planned(place: Yard, index: str) -> None:
    make(place, "v text NOT NULL", "erase", None)
    place.run(f"CREATE UNIQUE INDEX u ON a {index}")
    assert place.execute(place.plan()).done == {"a": 2}


@pytest.mark.parametrize(
    ("limit", "mask"),
    [
        ("v text, CHECK (other <> 'firm' OR v ~ '^[0-9]+$')", "phone"),
        ("v text NOT NULL, UNIQUE (v, other)", "erase"),
    ],
)
def test_masks_are_tried_on_records_of_the_class_alone(place: Yard, limit: str, mask: str) -> None:
    """Records of another kind in the same table are never masked."""
    make(place, limit, "erase", None)
    place.run(
        "DELETE FROM a;"
        f"INSERT INTO a SELECT n, '{OVER}', 'firm', NULL, n FROM generate_series(1, 300) n;"
        f"INSERT INTO a SELECT n, '{OVER}', n, NULL, n FROM generate_series(301, 302) n;"
    )
    place.rules = [rule("a", "mask", mask={"v": mask}, where="t.id > 300")]
    assert place.execute(place.plan()).done == {"a": 2}


def test_record_that_a_check_refuses_does_not_keep_the_others(place: Yard) -> None:
    """The execution skips that record, as any record that the database refuses."""
    check = "v text CHECK (v <> 'W**')"
    make(place, check, "name", "masked_at", "'Wang Fang'", "'Li Na'")
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 1}, {("a", "23514"): 1})


@pytest.mark.parametrize(("kind", "fits"), [("date", True), ("text", False), ("int", False)])
def test_stamp_has_to_hold_a_moment(place: Yard, kind: str, fits: bool) -> None:
    make(place, f"v text, stamp {kind}", "name", "stamp")
    if fits:
        assert place.execute(place.plan()).done == {"a": 2}
    else:
        with pytest.raises(UsageError, match=r"\(stamp\): its type cannot hold the moment"):
            place.plan()
