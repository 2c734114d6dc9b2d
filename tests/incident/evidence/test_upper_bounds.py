"""Tests of upper bounds for the numbers of people on a list that no single count covers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.incident.evidence.list_comparison import upper_bounds
from include.incident.scope import DatabaseCount, Scope, merge_counts
from include.incident.selection import Selection

PEOPLE = st.sets(st.integers(0, 9))
YOUNG, AGELESS = {0, 1, 2}, {3, 4}


def count_of(people: set[int], marked: set[int]) -> DatabaseCount:
    """Return a count of `people`.

    Only the people in `marked` have sensitive data in their records.
    """
    return DatabaseCount(
        database="courier",
        subjects=len(people),
        records={"waybill": len(people)},
        categories={"user.name": len(people & marked)} if people & marked else {},
        sensitive=len(people & (marked | YOUNG)),
        minors=len(people & YOUNG),
        age_unknown=len(people & AGELESS),
    )


def merged(*counts: DatabaseCount) -> DatabaseCount:
    """Return the newest count, but each figure is the greatest of all counts.

    Args:
        counts: counts of one database, oldest first.
    """
    scopes = [Scope(version=1, selection=Selection(), counted=(count,)) for count in counts]
    return merge_counts(*scopes)[0].counted[0]


@given(PEOPLE, PEOPLE, PEOPLE, PEOPLE, st.sets(st.integers(10, 14)))
def test_upper_bounds_are_not_below_true_numbers_of_listed_people(
    earlier: set[int], now: set[int], by_earlier: set[int], by_now: set[int], since: set[int]
) -> None:
    everybody = earlier | now | since
    before = count_of(earlier, by_earlier)
    newest = merged(before, count_of(now, by_now))
    if len(everybody) <= newest.subjects:
        return
    bound = upper_bounds([before], newest, len(everybody))
    marked = (earlier & by_earlier) | (now & by_now)
    assert bound.subjects == len(everybody)
    assert len((everybody & YOUNG) | marked | since) <= bound.sensitive <= len(everybody)
    assert bound.minors is not None
    assert len(everybody & YOUNG) <= bound.minors <= len(everybody)
    assert len(everybody & AGELESS) <= bound.age_unknown <= len(everybody)
    if marked:
        assert len(marked) <= bound.categories["user.name"] <= len(everybody)
    assert (bound.records, bound.unseen) == (newest.records, len(everybody) - newest.subjects)


def test_upper_bounds_exceed_newest_count_at_least_by_number_of_additional_people_on_list() -> None:
    before, now = count_of(set(range(20)), {5}), count_of(set(range(20, 40)), {20})
    bound = upper_bounds([before], merged(before, now), 40)
    assert (bound.subjects, bound.sensitive, bound.minors) == (40, 28, 23)
    assert upper_bounds([], before, 21).sensitive == before.sensitive + 1


def test_upper_bound_of_unknown_number_of_minors_is_unknown() -> None:
    assert upper_bounds([], DatabaseCount(database="courier", subjects=1), 2).minors is None
