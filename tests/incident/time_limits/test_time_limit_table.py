"""Time limits match the examples in `time_limit_table.txt`, which were calculated by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from include.incident.incident_ids import Kind
from include.incident.time_limits.time_limit import TimeLimit, milestone_of, missed_time_limits
from include.incident.timeline import Entry
from tests.incident.time_limits.time_limit_fixtures import entry, lines_of, look, rule, shipped

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
HEAD, *TABLE = lines_of(Path(__file__).with_name("time_limit_table.txt"))


@dataclass(frozen=True)
class Row:
    """A parsed row of `time_limit_table.txt`."""

    time_limit: str
    zone: ZoneInfo
    aware: datetime
    due: datetime | None
    state: str
    late: str
    happened: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, cells: list[str]) -> Row:
        time_limit, zone, aware, due, state, late_by, happened, _worked_out = cells
        row_zone = ZONES[zone]
        parts = [part.strip().partition(" ") for part in happened.split(";")]
        return cls(
            time_limit=time_limit,
            zone=row_zone,
            aware=_at(aware, row_zone),
            due=_at(due, row_zone) if due else None,
            state=state,
            late=late_by,
            happened=tuple((word, rest) for word, _, rest in parts),
        )

    def said(self, word: str) -> str | None:
        return next((rest for event, rest in self.happened if event == word), None)

    def at(self, word: str) -> datetime | None:
        return _at(text, self.zone) if (text := self.said(word)) else None

    def entries(self) -> list[Entry]:
        """Return the timeline that the row describes, in the order of recording."""
        name, _, not_needed = self.time_limit.partition(" ")
        events: list[tuple[datetime, datetime, Kind, dict[str, Any]]] = []
        for word, rest in self.happened:
            rest, _, entered = rest.partition(" entered ")
            if word == "graded":
                grade, _, moment = rest.partition(" ")
                at = _at(moment, self.zone)
                when = _at(entered, self.zone) if entered else at
                events.append((when, at, Kind.GRADED, {"grade": grade}))
            elif word == "declined":
                authority, _, moment = rest.partition(" ")
                at = _at(moment, self.zone)
                data = {"authority": authority, "complete": False}
                events.append((at, at, Kind.REPORTED, data))
            elif word in ("closed", "cancelled"):
                at = _at(rest, self.zone)
                when = _at(entered, self.zone) if entered else at
                events.append((when, at, Kind(word), {}))
            elif word == "done" and name != "graded":
                at = _at(rest, self.zone)
                ended = next(item for item in RULES if item.id == name)
                kind = Kind.DECIDED if not_needed else KINDS[ended.ends]
                data = {"authority": ended.authority} if ended.authority else {}
                data |= {"tell": False} if not_needed else {}
                events.append((self.at("entered") or at, at, kind, data))
        events.sort(key=lambda item: item[0])
        return [
            entry(place, kind, at, recorded=recorded, **data)
            for place, (recorded, at, kind, data) in enumerate(events, 1)
        ]

    def time_limit_at(self, now: datetime, entries: list[Entry]) -> TimeLimit:
        proposed = self.said("proposed") or "general"
        time_limits = look(
            entries,
            now,
            rules=RULES,
            aware_at=self.aware,
            zone=self.zone,
            critical=self.said("critical") is not None,
            proposed=None if proposed == "nothing" else proposed,
        )
        return time_limits[self.time_limit.partition(" ")[0]]

    def down(self) -> tuple[datetime, datetime] | None:
        if (text := self.said("down")) is None:
            return None
        begins, _, ends = text.partition(" until ")
        return _at(begins, self.zone), _at(ends, self.zone)


def _at(text: str, zone: ZoneInfo) -> datetime:
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)


def rows() -> list[Any]:
    return [
        pytest.param(Row.read(cells), id=f"{number}-{cells[0].replace(' ', '-')}-{cells[4]}")
        for number, cells in enumerate(TABLE, 1)
    ]


def test_table_of_examples_covers_all_time_limits_and_timezones():
    table_rows = [Row.read(cells) for cells in TABLE]
    assert HEAD[-1] == "worked out"
    assert len(table_rows) >= 40
    assert all(cells[-1] for cells in TABLE)
    assert {row.id for row in RULES} <= {row.time_limit.partition(" ")[0] for row in table_rows}
    assert {row.zone.key for row in table_rows} == {zone.key for zone in ZONES.values()}
    downtimes = [down for row in table_rows if (down := row.down())]
    assert len(downtimes) >= 5
    assert {ends - begins for begins, ends in downtimes} == {timedelta(hours=6)}


@pytest.mark.parametrize("row", rows())
def test_computed_deadline_state_and_lateness_equal_those_in_the_table_of_examples(row: Row):
    entries = row.entries()
    last = max([entry.recorded_at for entry in entries], default=row.aware)
    now = row.at("now")
    ended = row.state in ("met", "late", "missed", "lapsed", "stopped", "not_applicable")
    assert ended or now is not None
    times = (
        [now] if now and not ended else [last, last + timedelta(days=1), last.replace(year=2036)]
    )
    for moment in times:
        time_limit = row.time_limit_at(moment, entries)
        assert str(time_limit.state) == row.state
        assert str(time_limit.lateness) == row.late
        assert time_limit.due_at == row.due
        if row.due is not None and time_limit.due_at is not None:
            assert time_limit.due_at.astimezone(row.zone).utcoffset() == row.due.utcoffset()
        assert (missed_time_limits([time_limit]) == []) == (row.late == "0:00:00")


@pytest.mark.parametrize("row", [row for row in rows() if row.values[0].down()])
def test_state_and_lateness_at_the_end_of_downtime_equal_those_in_the_table_of_examples(row: Row):
    down = row.down()
    assert down is not None
    begins, ends = down
    entries = row.entries()
    assert not [entry for entry in entries if begins < entry.recorded_at < ends], "nothing ran then"
    time_limit = row.time_limit_at(
        ends, [entry for entry in entries if entry.recorded_at <= begins]
    )
    assert f"{time_limit.state} {time_limit.lateness}" == row.said("return")


def test_milestone_id_of_report_contains_the_authority():
    by_id = {rule_.id: rule_ for rule_ in RULES}
    assert milestone_of(by_id["cac_first"]) == "reported:cac"
    assert milestone_of(by_id["postal_first"]) == "reported:postal"
    assert milestone_of(by_id["individuals"]) == "individuals_told"
