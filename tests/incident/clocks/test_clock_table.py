"""Clocks against a table worked out by hand: `clock_table.txt`, which says how beside each row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.incident.clocks.clock import Clock, late, milestone_of
from include.incident.names import Kind
from include.incident.timeline import Entry
from tests.incident.clocks.clock_rig import entry, lines_of, look, rule, shipped

ZONES = {
    "Shanghai": ZoneInfo("Asia/Shanghai"),
    "Berlin": ZoneInfo("Europe/Berlin"),
    "New_York": ZoneInfo("America/New_York"),
}
EXTRA = (
    rule("gdpr", "reported", authority="supervisor", within="PT72H"),
    rule("monthly", "summarised", begins="closing", within="P1M"),
)
RULES = (*shipped().clocks, *EXTRA)
KINDS = {
    "opened": Kind.OPENED,
    "team_called": Kind.TEAM_CALLED,
    "graded": Kind.GRADED,
    "contained": Kind.CONTAINED,
    "reported": Kind.REPORTED,
    "individuals_told": Kind.TOLD,
    "summarised": Kind.SUMMARISED,
}
HEAD, *TABLE = lines_of(Path(__file__).with_name("clock_table.txt"))


@dataclass(frozen=True)
class Row:
    """A row of the table, its moments read."""

    clock: str
    zone: ZoneInfo
    aware: datetime
    due: datetime | None
    state: str
    late: str
    happened: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, cells: list[str]) -> Row:
        clock, zone, aware, due, state, late_by, happened, _worked_out = cells
        where = ZONES[zone]
        said = [one.strip().partition(" ") for one in happened.split(";")]
        return cls(
            clock=clock,
            zone=where,
            aware=_at(aware, where),
            due=_at(due, where) if due else None,
            state=state,
            late=late_by,
            happened=tuple((word, rest) for word, _, rest in said),
        )

    def said(self, word: str) -> str | None:
        return next((rest for one, rest in self.happened if one == word), None)

    def at(self, word: str) -> datetime | None:
        return _at(found, self.zone) if (found := self.said(word)) else None

    def entries(self) -> list[Entry]:
        """The timeline: in the order in which things were entered."""
        name, _, untold = self.clock.partition(" ")
        found: list[tuple[datetime, datetime, Kind, dict[str, Any]]] = []
        for word, rest in self.happened:
            rest, _, entered = rest.partition(" entered ")
            if word == "graded":
                grade, _, moment = rest.partition(" ")
                at = _at(moment, self.zone)
                when = _at(entered, self.zone) if entered else at
                found.append((when, at, Kind.GRADED, {"grade": grade}))
            elif word == "declined":
                authority, _, moment = rest.partition(" ")
                at = _at(moment, self.zone)
                data = {"authority": authority, "complete": False}
                found.append((at, at, Kind.REPORTED, data))
            elif word in ("closed", "cancelled"):
                at = _at(rest, self.zone)
                when = _at(entered, self.zone) if entered else at
                found.append((when, at, Kind(word), {}))
            elif word == "done" and name != "graded":
                at = _at(rest, self.zone)
                ended = next(one for one in RULES if one.id == name)
                kind = Kind.DECIDED if untold else KINDS[ended.ends]
                data = {"authority": ended.authority} if ended.authority else {}
                data |= {"tell": False} if untold else {}
                found.append((self.at("entered") or at, at, kind, data))
        found.sort(key=lambda one: one[0])
        return [
            entry(place, kind, at, recorded=recorded, **data)
            for place, (recorded, at, kind, data) in enumerate(found, 1)
        ]

    def stands(self, now: datetime, entries: list[Entry]) -> Clock:
        proposed = self.said("proposed") or "general"
        found = look(
            entries,
            now,
            rules=RULES,
            aware_at=self.aware,
            zone=self.zone,
            critical=self.said("critical") is not None,
            proposed=None if proposed == "nothing" else proposed,
        )
        return found[self.clock.partition(" ")[0]]

    def down(self) -> tuple[datetime, datetime] | None:
        if (found := self.said("down")) is None:
            return None
        begins, _, ends = found.partition(" until ")
        return _at(begins, self.zone), _at(ends, self.zone)


def _at(text: str, zone: ZoneInfo) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=zone)


def rows() -> list[Any]:
    return [
        pytest.param(Row.read(cells), id=f"{number}-{cells[0].replace(' ', '-')}-{cells[4]}")
        for number, cells in enumerate(TABLE, 1)
    ]


def test_the_table_is_as_long_as_it_has_to_be():
    """At least forty rows, each with its working, over every clock that the pack is shipped with.

    `contained` and the others of the pack are all there, with three timezones, and six hours of
    downtime in several of them.
    """
    read = [Row.read(cells) for cells in TABLE]
    assert HEAD[-1] == "worked out"
    assert len(read) >= 40
    assert all(cells[-1] for cells in TABLE)
    assert {one.id for one in RULES} <= {one.clock.partition(" ")[0] for one in read}
    assert {one.zone.key for one in read} == {one.key for one in ZONES.values()}
    stood_still = [down for one in read if (down := one.down())]
    assert len(stood_still) >= 5
    assert {ends - begins for begins, ends in stood_still} == {timedelta(hours=6)}


@pytest.mark.parametrize("row", rows())
def test_a_clock_stands_as_was_worked_out_by_hand(row: Row):
    """Due time to the second and offset, state, and lateness to the microsecond.

    A clock that is done or ended stands so whoever looks when.
    """
    entries = row.entries()
    last = max([one.recorded_at for one in entries], default=row.aware)
    now = row.at("now")
    ended = row.state in ("met", "late", "missed", "lapsed", "stopped", "not_applicable")
    assert ended or now is not None
    looks = (
        [now] if now and not ended else [last, last + timedelta(days=1), last.replace(year=2036)]
    )
    for moment in looks:
        found = row.stands(moment, entries)
        assert str(found.state) == row.state
        assert str(found.lateness) == row.late
        assert found.due_at == row.due
        if row.due is not None and found.due_at is not None:
            assert found.due_at.astimezone(row.zone).utcoffset() == row.due.utcoffset()
        assert (late([found]) == []) == (row.late == "0:00:00")


@pytest.mark.parametrize("row", [one for one in rows() if one.values[0].down()])
def test_clocks_show_the_truth_when_everything_is_back(row: Row):
    """On return, before anybody enters anything, they stand as their timestamps say: overdue ones
    are overdue by all the time that passed.
    """
    down = row.down()
    assert down is not None
    begins, ends = down
    entries = row.entries()
    assert not [one for one in entries if begins < one.recorded_at < ends], "nothing ran then"
    found = row.stands(ends, [one for one in entries if one.recorded_at <= begins])
    assert f"{found.state} {found.lateness}" == row.said("return")


def test_the_milestones_of_the_table_are_those_of_the_rules():
    """A report counts for its own authority alone."""
    by_id = {one.id: one for one in RULES}
    assert milestone_of(by_id["cac_first"]) == "reported:cac"
    assert milestone_of(by_id["postal_first"]) == "reported:postal"
    assert milestone_of(by_id["individuals"]) == "individuals_told"
