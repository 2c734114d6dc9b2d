"""What a selection means: SQL against plain Python, over rows that nobody would have thought of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from include.incident.counting import affected as affecting
from include.incident.counting import logs
from include.incident.counting.affected import Affected, affected
from include.incident.counting.database import count
from include.incident.counting.live import look
from include.incident.counting.people import some
from include.incident.rules import ScopeRule
from include.incident.selection import Selection
from include.local.postgres import EmbeddedPostgres
from tests.incident.counting.shop import (
    LINKED,
    MOMENT,
    RULE,
    SCHEMA,
    SENSITIVE,
    SHOP,
    ZONE,
    Rows,
    day,
    expected,
)
from tests.support.databases import fresh

EXAMPLES = 150
# On both sides of borders: the same moments are those of records and of windows.
MOMENTS = [datetime(2026, 1, one, hour, tzinfo=ZONE) for one in (1, 2, 3) for hour in (0, 12)]
moments = st.sampled_from([None, *MOMENTS])
words = st.sampled_from([None, "", "x"])
persons = st.sampled_from([None, 1, 2, 3, 4])


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A session in the empty shop; what a test writes is rolled back."""
    with fresh(postgres) as name, psycopg.connect(postgres.conninfo(name)) as connection:
        connection.execute(SCHEMA)
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        connection.commit()
        yield connection
        connection.rollback()


@st.composite
def shops(draw: st.DrawFn) -> Rows:
    """Rows of the shop."""
    there = draw(st.sets(st.integers(1, 4)))
    known = st.sampled_from([None, *sorted(there)])
    rows = Rows()
    for key in sorted(there):
        born = draw(st.sampled_from([None, "1980-05-05", "2012-03-01", "2012-03-02"]))
        blood = draw(st.sampled_from([None, {}, {"blood": ""}, {"blood": "A"}, {"blood": None}]))
        rows.person.append((
            key, draw(words), born and day(born), draw(st.sampled_from([None, 1, 2])), draw(words),
            None if blood is None else Jsonb(blood), draw(moments),
        ))  # fmt: skip
    for key in range(1, draw(st.integers(0, 5)) + 1):
        made = draw(moments)
        rows.doc.append((
            key, draw(st.sampled_from([None, "", "A-1", "7"])), draw(known), draw(known),
            made and made.replace(tzinfo=None), draw(st.sampled_from([None, "North", "South"])),
            draw(words), draw(words),
        ))  # fmt: skip
    for key in range(1, draw(st.integers(0, 3)) + 1):
        rows.tag.append((key, draw(known), draw(words)))
        at = draw(moments)
        rows.memo.append((key, draw(persons), at and at.date(), draw(words)))
    for key in range(1, draw(st.integers(0, 4)) + 1):
        rows.opened.append((key, draw(st.sampled_from([1, 2, 3])), draw(persons), draw(moments)))
        rows.seen.append((key, draw(st.sampled_from([1, 2, 3])), draw(known), draw(moments)))
        rows.given.append((key, draw(st.sampled_from([1, 2])), draw(persons), draw(moments)))
    return rows


@st.composite
def selections(draw: st.DrawFn, rule: ScopeRule) -> Selection:
    """What somebody may say."""
    names = [f"shop.{one.collection}" for one in rule.records]
    some_of = st.lists(st.sampled_from(names), unique=True, max_size=3)
    since = draw(moments)
    until = draw(st.sampled_from([None, *(one for one in MOMENTS if not since or one > since)]))
    keys = draw(st.lists(st.sampled_from(["1", "3", "9", "A-1", "7", "no key"]), unique=True))
    return Selection(
        databases=("shop",),
        collections=tuple(draw(some_of)),
        since=since,
        until=until,
        departments=tuple(draw(st.lists(st.sampled_from(["North", "East"]), unique=True))),
        accounts=tuple(draw(st.lists(st.sampled_from(["ann", "bob"]), unique=True))),
        partner=draw(st.sampled_from([None, "1"])),
        keys_of="shop.doc" if keys and draw(st.booleans()) else None,
        keys=tuple(keys),
    )


@pytest.fixture(params=["few", "many", "too many"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways by which records are found; all find the same."""
    if request.param != "few":
        monkeypatch.setattr(affecting, "_FEW", 10**9)
    if request.param == "too many":  # for their keys to be brought here
        monkeypatch.setattr(logs, "MOST_KEYS", 0)
    return str(request.param)


def found_by(
    shop: psycopg.Connection[Any], rows: Rows, chosen: Selection, rule: ScopeRule
) -> Affected:
    rows.put(shop)
    return affected(look(shop, SHOP, rule), chosen, MOMENT)


@pytest.mark.parametrize("rule", [RULE, LINKED], ids=["strangers", "linked"])
@settings(max_examples=EXAMPLES // 6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_selection_means_what_python_says(
    shop: psycopg.Connection[Any], way: str, rule: ScopeRule, data: st.DataObject
) -> None:
    """Windows, departments, accounts, a partner and keys, in every combination."""
    rows, chosen = data.draw(shops()), data.draw(selections(rule))
    try:
        found = count(found_by(shop, rows, chosen, rule), SENSITIVE)
    finally:
        shop.rollback()
    assert found.model_dump() == expected(rows, chosen, rule).model_dump()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_list_of_people_has_as_many_as_are_counted(
    shop: psycopg.Connection[Any], way: str, data: st.DataObject
) -> None:
    """By foreign keys to the collection of people, and by all their records."""
    rows = data.draw(shops())
    keys = data.draw(st.sampled_from([(), ("1", "3", "9")]))
    accounts = data.draw(st.sampled_from([(), ("ann",), ("ann", "bob")]))
    chosen = Selection(
        databases=("shop",),
        accounts=accounts,
        collections=data.draw(st.sampled_from([(), ("shop.person",), ("shop.person", "shop.tag")])),
        keys=keys,
    )
    try:
        found = found_by(shop, rows, chosen, LINKED)
        assert found.by_own_row
        counted, _rows = some(found, SENSITIVE)
        query = found.people()
        listed = sorted(key for (key,) in shop.execute(query, found.values))
    finally:
        shop.rollback()
    assert len(listed) == counted.count


def test_windows_that_follow_each_other_share_nothing(shop: psycopg.Connection[Any]) -> None:
    """Half open: a record on the border is in the later one."""
    border = MOMENTS[3]
    rows = Rows(person=[(1, "x", None, 1, None, None, border)])
    before = Selection(databases=("shop",), collections=("shop.person",), until=border)
    after = before.model_copy(update={"since": border, "until": border + timedelta(hours=1)})
    try:
        rows.put(shop)
        live = look(shop, SHOP, RULE)
        counts = [count(affected(live, one, MOMENT), SENSITIVE).subjects for one in (before, after)]
    finally:
        shop.rollback()
    assert counts == [0, 1]
