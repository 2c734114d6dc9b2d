"""Few records that keep others are read one by one: the plan says what it says without that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention import keepers
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard

# A composite key of which one column is text, one key of numbers of another width, two keys to one
# parent, a table that is not in the data map, and one that is set to null unless a hold is on it.
TABLES = """
CREATE TABLE parent (x text, y smallint, at date, other date, PRIMARY KEY (x, y));
CREATE TABLE child (id bigint PRIMARY KEY, at date, ax text, ay int, bx text, by bigint, who text,
  FOREIGN KEY (ax, ay) REFERENCES parent, FOREIGN KEY (bx, by) REFERENCES parent);
CREATE TABLE grandchild (id int PRIMARY KEY, at date, child int REFERENCES child);
CREATE TABLE stranger (child bigint REFERENCES child);
CREATE TABLE tag (id int PRIMARY KEY, who text, child bigint REFERENCES child ON DELETE SET NULL);
"""
AGES = st.sampled_from([OVER, OVER, OVER, YOUNG, None])
NUMBERS = st.integers(-3, 6)
KEYS = st.tuples(st.sampled_from("kl"), NUMBERS)
PEOPLE = st.sampled_from("abc")


@dataclass(frozen=True)
class Rows:
    """What the tables hold, by their keys; a reference that leads nowhere is left out."""

    parents: dict[tuple[str, int], tuple[str | None, str | None]]
    children: dict[int, tuple[str | None, tuple[str, int], tuple[str, int], str]]
    grandchildren: list[tuple[str | None, int]] = field(default_factory=list)
    strangers: list[int] = field(default_factory=list)
    tags: list[tuple[str, int]] = field(default_factory=list)


ROWS = st.builds(
    Rows,
    parents=st.dictionaries(KEYS, st.tuples(AGES, AGES), max_size=8),
    children=st.dictionaries(NUMBERS, st.tuples(AGES, KEYS, KEYS, PEOPLE), max_size=8),
    grandchildren=st.lists(st.tuples(AGES, NUMBERS), max_size=5),
    strangers=st.lists(NUMBERS, max_size=2),
    tags=st.lists(st.tuples(PEOPLE, NUMBERS), max_size=3),
)


@pytest.fixture(scope="module")
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, TABLES) as made:
        made.mapped = {one: one for one in ("parent", "child", "grandchild", "tag")}
        made.hold(HoldKind.SUBJECT, "a")
        made.rules = [
            rule("parent"),
            rule("parent", name="odd", where="t.y % 2 = 1", clock="other"),
            rule("child", keys={"subject": "t.who"}),
            rule("grandchild"),
            rule("tag", "keep", clock={"sql": "NULL::date"}, keys={"subject": "t.who"}),
        ]
        yield made


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=ROWS)
def test_the_plan_is_the_same_as_of_whole_tables(place: Yard, rows: Rows) -> None:
    """Counts, digests, and what keeps what, whichever way it was found."""
    fill(place, rows)
    by_numbers = place.plan()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keepers, "FEW", -1)
        whole = place.plan()
    assert by_numbers == whole


@pytest.mark.parametrize("few", [2, 3, 4])
def test_one_more_than_few_is_not_few(
    place: Yard, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Referring records are counted, not the numbers they refer to; beyond, nothing is missed."""
    first, second = ("k", 1), ("k", 2)
    children = {n: (YOUNG, first if n < 3 else second, ("l", 9), "b") for n in range(4)}
    fill(place, Rows({first: (OVER, OVER), second: (OVER, OVER)}, children))
    monkeypatch.setattr(keepers, "FEW", few)
    plan = place.plan()
    assert plan.table("parent").to_delete == 0
    assert {one.constraint: one.records for one in plan.of("parent").referred_by} == {
        "child_ax_ay_fkey": 2
    }


def fill(place: Yard, rows: Rows) -> None:
    """Put rows into the tables instead of those that are there."""
    place.run("TRUNCATE parent, child, grandchild, stranger, tag")
    nowhere = (None, None)
    for (x, y), ages in rows.parents.items():
        insert(place, "parent", x, y, *ages)
    for number, (at, a, b, who) in rows.children.items():
        refers = [*(a if a in rows.parents else nowhere), *(b if b in rows.parents else nowhere)]
        insert(place, "child", number, at, *refers, who)
    for number, (at, child) in enumerate(rows.grandchildren):
        insert(place, "grandchild", number, at, child if child in rows.children else None)
    for child in rows.strangers:
        insert(place, "stranger", child if child in rows.children else None)
    for number, (who, child) in enumerate(rows.tags):
        insert(place, "tag", number, who, child if child in rows.children else None)


def insert(place: Yard, table: str, *values: object) -> None:
    given = ", ".join(["%s"] * len(values))
    place.connection.execute(f"INSERT INTO {table} VALUES ({given})".encode(), values)
