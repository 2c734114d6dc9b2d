"""An extract has every row of a log that any count counted, and no row of others where all name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from include.incident.evidence.extracts import BEFORE, Wanted, accesses, shares
from include.incident.selection import Selection

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = st.integers(-400, 30).map(lambda day: BEGUN + timedelta(days=day))
NAMES = st.sampled_from(["E1", "E2", "E3"])


@st.composite
def selection(draw: st.DrawFn) -> Selection:
    """Accounts, a partner, a window: each or none."""
    since, until = draw(st.none() | DAYS), draw(st.none() | DAYS)
    if since and until and until <= since:
        since = None
    return Selection(
        since=since,
        until=until,
        accounts=tuple(draw(st.sets(NAMES))),
        partner=draw(st.none() | NAMES),
    )


def within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)


def has(wanted: Wanted, who: str, at: datetime) -> bool:
    whose = not wanted.whose or who in wanted.whose
    return whose and within(at, wanted.since, wanted.until)


@given(st.lists(selection(), min_size=1, max_size=3), NAMES, DAYS)
def test_what_was_counted_is_extracted(said: list[Selection], who: str, at: datetime) -> None:
    """By any of the counts, in both logs."""
    for one in said:
        if who in one.accounts and within(at, one.since, one.until):
            assert has(accesses(said, BEGUN), who, at)
        if who == one.partner and within(at, one.since, one.until):
            given_to = shares(said)
            assert given_to is not None
            assert has(given_to, who, at)


@given(selection())
def test_only_everybodys_rows_are_those_of_half_a_year(one: Selection) -> None:
    """Where accounts and no time are named, all of the log is meant."""
    found = accesses([one], BEGUN)
    assert found.whose == tuple(sorted(one.accounts))
    assert found.until == one.until
    assert found.since == (one.since or (None if one.accounts else BEGUN - BEFORE))
    assert (shares([one]) is None) is (one.partner is None)
