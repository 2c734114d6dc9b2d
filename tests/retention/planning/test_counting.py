"""Counts of one scan: how many records each hold keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.planning import counting
from include.retention.planning.plan import HeldBy
from tests.retention.yard import OVER, Yard, rule, yard


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    table = f"""
    CREATE TABLE a (id int PRIMARY KEY, at date, who text);
    INSERT INTO a SELECT i, '{OVER}', i % 5 FROM generate_series(1, 20) i;
    """
    with yard(postgres, table) as made:
        made.rules = [rule("a", keys={"subject": "t.who"})]
        yield made


def test_each_hold_is_counted_and_what_several_keep_counts_once_in_all(place: Yard) -> None:
    """A class hold keeps all; a hold is one, though it may stand under two keys."""
    first = place.hold(HoldKind.SUBJECT, "1")
    every = place.hold(HoldKind.CLASS, "a")
    nobody = place.hold(HoldKind.SUBJECT, "7")
    last = place.hold(HoldKind.SUBJECT, "2")
    found = place.plan().of("a")
    assert found.held == 20
    assert found.held_by == (
        HeldBy(hold=first.id, records=4),
        HeldBy(hold=every.id, records=20),
        HeldBy(hold=last.id, records=4),
    )
    assert nobody.id not in {one.hold for one in found.held_by}


def test_the_first_holds_are_counted_apart_and_all_of_them_keep(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two keys of one hold are one hold of these."""
    monkeypatch.setattr(counting, "MOST_HOLDS", 3)
    made = [place.hold(HoldKind.SUBJECT, str(number)) for number in range(4)]
    found = place.plan().of("a")
    assert found.held == 16
    assert [one.hold for one in found.held_by] == [one.id for one in made[:3]]
