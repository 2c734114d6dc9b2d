"""Tests that an extract has the rows of every count.

If all counts name accounts, the extract has only rows of these accounts.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from include.incident.evidence.log_extracts import LOOKBACK, ExtractScope, access_scope, share_scope
from include.incident.selection import Selection

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = st.integers(-400, 30).map(lambda day: BEGUN + timedelta(days=day))
NAMES = st.sampled_from(["E1", "E2", "E3"])


@st.composite
def selection(draw: st.DrawFn) -> Selection:
    """Draw criteria with accounts, a partner and a time window, each of them optional."""
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


def has(scope: ExtractScope, name: str, at: datetime) -> bool:
    is_selected = not scope.whose or name in scope.whose
    return is_selected and within(at, scope.since, scope.until)


@given(st.lists(selection(), min_size=1, max_size=3), NAMES, DAYS)
def test_log_extract_includes_all_accounts_and_times_of_every_count(
    selections: list[Selection], name: str, at: datetime
) -> None:
    for selection_ in selections:
        if name in selection_.accounts and within(at, selection_.since, selection_.until):
            assert has(access_scope(selections, BEGUN), name, at)
        if name == selection_.partner and within(at, selection_.since, selection_.until):
            shared = share_scope(selections)
            assert shared is not None
            assert has(shared, name, at)


@given(selection())
def test_access_log_extract_starts_half_a_year_before_leak_if_scope_has_no_account_and_no_start(
    selection_: Selection,
) -> None:
    scope = access_scope([selection_], BEGUN)
    assert scope.whose == tuple(sorted(selection_.accounts))
    assert scope.until == selection_.until
    assert scope.since == (selection_.since or (None if selection_.accounts else BEGUN - LOOKBACK))
    assert (share_scope([selection_]) is None) is (selection_.partner is None)
