"""Tests with random scope criteria that compare counts by SQL with counts computed in Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from include.incident.counting import affected_records, logs
from include.incident.counting.affected_records import AffectedRecords, resolve_selection
from include.incident.counting.database import count_database
from include.incident.counting.live_database import inspect_database
from include.incident.counting.subject_counts import count_subjects
from include.incident.rules import ScopeRule
from include.incident.selection import Selection
from include.local.postgres import EmbeddedPostgres
from tests.incident.counting.shop_oracle import (
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
from tests.support.databases import temporary_database

EXAMPLES = 150
# Records and time windows share these times, so that the ends of windows are tested.
MOMENTS = [datetime(2026, 1, day, hour, tzinfo=ZONE) for day in (1, 2, 3) for hour in (0, 12)]
moments = st.sampled_from([None, *MOMENTS])
words = st.sampled_from([None, "", "x"])
persons = st.sampled_from([None, 1, 2, 3, 4])


@pytest.fixture(scope="module")
def shop(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """Provide a session in the empty shop database. Each test rolls back its changes."""
    with (
        temporary_database(postgres) as name,
        psycopg.connect(postgres.conninfo(name)) as connection,
    ):
        connection.execute(SCHEMA)
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        connection.commit()
        yield connection
        connection.rollback()


@st.composite
def shops(draw: st.DrawFn) -> Rows:
    """Draw random rows of the shop."""
    person_keys = draw(st.sets(st.integers(1, 4)))
    known_keys = st.sampled_from([None, *sorted(person_keys)])
    rows = Rows()
    for key in sorted(person_keys):
        born = draw(st.sampled_from([None, "1980-05-05", "2012-03-01", "2012-03-02"]))
        blood = draw(st.sampled_from([None, {}, {"blood": ""}, {"blood": "A"}, {"blood": None}]))
        rows.person.append((
            key, draw(words), born and day(born), draw(st.sampled_from([None, 1, 2])), draw(words),
            None if blood is None else Jsonb(blood), draw(moments),
        ))  # fmt: skip
    for key in range(1, draw(st.integers(0, 5)) + 1):
        written_at = draw(moments)
        rows.doc.append((
            key, draw(st.sampled_from([None, "", "A-1", "7"])), draw(known_keys), draw(known_keys),
            written_at and written_at.replace(tzinfo=None),
            draw(st.sampled_from([None, "North", "South"])),
            draw(words), draw(words),
        ))  # fmt: skip
    for key in range(1, draw(st.integers(0, 3)) + 1):
        rows.tag.append((key, draw(known_keys), draw(words)))
        at = draw(moments)
        rows.memo.append((key, draw(persons), at and at.date(), draw(words)))
    for key in range(1, draw(st.integers(0, 4)) + 1):
        rows.opened.append((key, draw(st.sampled_from([1, 2, 3])), draw(persons), draw(moments)))
        rows.seen.append((key, draw(st.sampled_from([1, 2, 3])), draw(known_keys), draw(moments)))
        rows.given.append((key, draw(st.sampled_from([1, 2])), draw(persons), draw(moments)))
    return rows


@st.composite
def selections(draw: st.DrawFn, rule: ScopeRule) -> Selection:
    """Draw random criteria of affected records."""
    names = [f"shop.{record.collection}" for record in rule.records]
    some_of = st.lists(st.sampled_from(names), unique=True, max_size=3)
    since = draw(moments)
    until = draw(
        st.sampled_from([None, *(moment for moment in MOMENTS if not since or moment > since)])
    )
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
    """Provide the name of a method to find affected records; each test runs once per method.

    All methods must return the same counts.
    """
    if request.param != "few":
        monkeypatch.setattr(affected_records, "_LOOKUP_RATIO", 10**9)
    if request.param == "too many":  # too many keys for a query parameter
        monkeypatch.setattr(logs, "MAX_INLINE_KEYS", 0)
    return str(request.param)


def resolve(
    shop: psycopg.Connection[Any], rows: Rows, selection: Selection, rule: ScopeRule
) -> AffectedRecords:
    rows.put(shop)
    return resolve_selection(inspect_database(shop, SHOP, rule), selection, MOMENT)


@pytest.mark.parametrize("rule", [RULE, LINKED], ids=["strangers", "linked"])
@settings(max_examples=EXAMPLES // 6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_counts_by_random_criteria_match_counts_computed_in_python(
    shop: psycopg.Connection[Any], way: str, rule: ScopeRule, data: st.DataObject
) -> None:
    rows, selection = data.draw(shops()), data.draw(selections(rule))
    try:
        count = count_database(resolve(shop, rows, selection, rule), SENSITIVE)
    finally:
        shop.rollback()
    assert count.model_dump() == expected(rows, selection, rule).model_dump()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_number_of_people_on_list_equals_number_of_counted_people(
    shop: psycopg.Connection[Any], way: str, data: st.DataObject
) -> None:
    rows = data.draw(shops())
    keys = data.draw(st.sampled_from([(), ("1", "3", "9")]))
    accounts = data.draw(st.sampled_from([(), ("ann",), ("ann", "bob")]))
    selection = Selection(
        databases=("shop",),
        accounts=accounts,
        collections=data.draw(st.sampled_from([(), ("shop.person",), ("shop.person", "shop.tag")])),
        keys=keys,
    )
    try:
        affected = resolve(shop, rows, selection, LINKED)
        assert affected.is_by_subject_table
        counted, _rows = count_subjects(affected, SENSITIVE)
        query = affected.people()
        listed = sorted(key for (key,) in shop.execute(query, affected.values))
    finally:
        shop.rollback()
    assert len(listed) == counted.count


def test_record_at_border_of_two_time_windows_is_counted_in_the_later_window_only(
    shop: psycopg.Connection[Any],
) -> None:
    border = MOMENTS[3]
    rows = Rows(person=[(1, "x", None, 1, None, None, border)])
    before = Selection(databases=("shop",), collections=("shop.person",), until=border)
    after = before.model_copy(update={"since": border, "until": border + timedelta(hours=1)})
    try:
        rows.put(shop)
        live = inspect_database(shop, SHOP, RULE)
        counts = [
            count_database(resolve_selection(live, selection, MOMENT), SENSITIVE).subjects
            for selection in (before, after)
        ]
    finally:
        shop.rollback()
    assert counts == [0, 1]
