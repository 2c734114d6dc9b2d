"""Figures of a list that nobody counted at once are never less than the truth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.incident.evidence.listing import bounded
from include.incident.scope import Counted, Scope, widened
from include.incident.selection import Selection

PEOPLE = st.sets(st.integers(0, 9))
YOUNG, AGELESS = {0, 1, 2}, {3, 4}


def found(people: set[int], marked: set[int]) -> Counted:
    """What a count says of people, of whom its records mark some."""
    return Counted(
        database="courier",
        subjects=len(people),
        records={"waybill": len(people)},
        categories={"user.name": len(people & marked)} if people & marked else {},
        sensitive=len(people & (marked | YOUNG)),
        minors=len(people & YOUNG),
        age_unknown=len(people & AGELESS),
    )


def merged(*counts: Counted) -> Counted:
    """The newest one, with no figure less than before."""
    scopes = [Scope(version=1, selection=Selection(), counted=(one,)) for one in counts]
    return widened(*scopes)[0].counted[0]


@given(PEOPLE, PEOPLE, PEOPLE, PEOPLE, st.sets(st.integers(10, 14)))
def test_no_figure_of_people_is_less_than_that_of_the_whole_list(
    earlier: set[int], now: set[int], by_earlier: set[int], by_now: set[int], since: set[int]
) -> None:
    """Also where each count found other things out about the same people, and some came since."""
    everybody = earlier | now | since
    before = found(earlier, by_earlier)
    newest = merged(before, found(now, by_now))
    if len(everybody) <= newest.subjects:
        return
    bound = bounded([before], newest, len(everybody))
    marked = (earlier & by_earlier) | (now & by_now)
    assert bound.subjects == len(everybody)
    assert len((everybody & YOUNG) | marked | since) <= bound.sensitive <= len(everybody)
    assert bound.minors is not None
    assert len(everybody & YOUNG) <= bound.minors <= len(everybody)
    assert len(everybody & AGELESS) <= bound.age_unknown <= len(everybody)
    if marked:
        assert len(marked) <= bound.categories["user.name"] <= len(everybody)
    assert (bound.records, bound.unseen) == (newest.records, len(everybody) - newest.subjects)


def test_two_lists_that_share_nobody_add_up() -> None:
    """Twenty people, then twenty others; of each a few have what is sensitive."""
    before, now = found(set(range(20)), {5}), found(set(range(20, 40)), {20})
    bound = bounded([before], merged(before, now), 40)
    assert (bound.subjects, bound.sensitive, bound.minors) == (40, 28, 23)
    assert bounded([], before, 21).sensitive == before.sensitive + 1


def test_where_the_age_is_not_known_nobody_makes_it_known() -> None:
    """None stays None."""
    assert bounded([], Counted(database="courier", subjects=1), 2).minors is None
