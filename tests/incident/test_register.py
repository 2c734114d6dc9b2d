"""An incident is opened once, however often Trigger is pressed, and ends once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from include.incident import form, register, timeline
from include.incident.form import Form
from include.incident.names import Kind, State
from include.incident.register import Incident
from include.incident.rule_checks import INCIDENT
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.policy.period import Period
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.errors import UsageError

NOW = datetime(2026, 11, 25, 19, 5, tzinfo=UTC)  # after three at night in Shanghai
ZONE = ZoneInfo("Asia/Shanghai")
RULES = load_pack(SHIPPED).section(INCIDENT)
assert RULES is not None
GIVEN = {"type": "lost_device", "what": "A scanner was left in a taxi"}


def filled(**more: object) -> Form:
    assert RULES is not None
    return form.read(GIVEN | more, RULES, NOW, ZONE)


def opened(
    conn: Connection, run: str = "manual__1", at: datetime = NOW, year: int = 2026, **more: object
) -> Incident:
    assert RULES is not None
    return register.open_incident(
        conn,
        filled(**more),
        RULES,
        Run("respond_to_incident", run),
        by="E00001",
        clock=FixedClock(at),
        zone=ZONE,
        year=year,
    )


def test_the_same_run_again_is_the_same_incident(conn: Connection) -> None:
    """A task that is repeated opens nothing twice."""
    first = opened(conn)
    assert opened(conn) == first
    assert (first.number, first.state, first.type) == ("INC-2026-0001", State.OPEN, "lost_device")
    assert [one.kind for one in timeline.entries(conn, first.id)] == [Kind.OPENED]


def test_the_same_form_by_another_run_is_a_linked_duplicate(conn: Connection) -> None:
    """It is told on the first one's timeline, and led no further."""
    first = opened(conn)
    again = opened(conn, "manual__2", NOW + timedelta(minutes=3))
    assert (again.state, again.duplicate_of) == (State.DUPLICATE, first.number)
    assert not again.is_led
    told = timeline.entries(conn, first.id)[-1]
    assert (told.kind, told.data) == (Kind.PRESSED_AGAIN, {"number": again.number})
    assert opened(conn, "manual__3").duplicate_of == first.number


@pytest.mark.parametrize(
    "more",
    [
        {"another": True},
        {"what": "A laptop was stolen"},
        {"type": "ransomware"},
        {"databases": ["courier"], "accounts": ["E00007"]},
    ],
)
def test_whatever_differs_is_another_incident(conn: Connection, more: dict[str, object]) -> None:
    """Or what somebody says is another; an incident that is never led is the worse mistake."""
    opened(conn)
    assert opened(conn, "manual__2", **more).state is State.OPEN


def test_the_same_form_half_a_day_later_is_another_incident(conn: Connection) -> None:
    """Within duplicate_within it is the same one; what was cancelled is never the same."""
    first = opened(conn)
    assert opened(conn, "2", NOW + timedelta(hours=12)).state is State.OPEN
    register.ended(conn, first.id, State.CANCELLED, NOW)
    assert opened(conn, "3", NOW + timedelta(hours=1)).duplicate_of != first.number


def test_the_same_form_after_the_closing_is_a_duplicate_too(conn: Connection) -> None:
    """Else the same people would get the same letter twice."""
    first = opened(conn)
    register.ended(conn, first.id, State.CLOSED, NOW)
    again = opened(conn, "2", NOW + timedelta(hours=1))
    assert (again.state, again.duplicate_of) == (State.DUPLICATE, first.number)


def test_no_drill_has_the_number_of_an_incident(conn: Connection) -> None:
    """Who practises an addition with it would change the real one."""
    assert RULES is not None
    drill = opened(conn, "drill", tabletop=RULES.scenarios[0].id)
    assert drill.number.startswith("DRILL-2026-")


@pytest.mark.parametrize(("days", "same"), [(27.9, True), (28.1, False)])
def test_the_same_form_within_a_month_of_the_calendar_is_a_duplicate(
    conn: Connection, days: float, same: bool
) -> None:
    """From 1 February on that is 28 days."""
    assert RULES is not None
    monthly = RULES.model_copy(update={"duplicate_within": Period.parse("P1M")})
    first = datetime(2026, 2, 1, 1, tzinfo=UTC)
    made = [
        register.open_incident(
            conn, form.read(GIVEN, monthly, at, ZONE), monthly,
            Run("respond_to_incident", str(at)), by="", clock=FixedClock(at), zone=ZONE, year=2026,
        )
        for at in (first, first + timedelta(days=days))
    ]  # fmt: skip
    assert (made[1].state is State.DUPLICATE) == same


def test_a_drill_begins_months_of_the_calendar_after_awareness() -> None:
    """A scenario may be about what nobody told anybody for months."""
    assert RULES is not None
    named = RULES.scenarios[0].model_copy(update={"aware_before": Period.parse("P1M1DT1H")})
    rules = RULES.model_copy(update={"scenarios": (named,)})
    pressed = datetime(2026, 3, 31, 5, tzinfo=UTC)
    read = form.read({"tabletop": named.id}, rules, pressed, ZONE)
    assert read.aware_at == datetime(2026, 2, 27, 4, tzinfo=UTC)
    said = {"tabletop": named.id, "aware_at": "2026-03-30T08:00"}
    assert form.read(said, rules, pressed, ZONE).aware_at == datetime(2026, 3, 30, tzinfo=UTC)


def test_two_who_press_at_once_open_one(state: Engine) -> None:
    """Whoever comes second waits, and is the duplicate."""

    def press(run: str) -> Incident:
        with state.begin() as conn:
            return opened(conn, run, year=2031, what="Two pressed at once")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(press, map(str, range(8))))
    assert sorted(one.state for one in found) == [State.DUPLICATE] * 7 + [State.OPEN]
    assert sorted(one.number for one in found) == [f"INC-2031-{n:04d}" for n in range(1, 9)]


def test_what_an_incident_began_with_cannot_be_changed(conn: Connection) -> None:
    """Neither can its end, once it has one; the database itself refuses."""
    found = opened(conn)
    for change in ("aware_at = now()", "type = 'ransomware'", "clocks = '[]'"):
        refused(conn, f"UPDATE incident SET {change}")
    refused(conn, "DELETE FROM incident")
    refused(conn, "TRUNCATE incident CASCADE")
    register.graded(conn, found.id, "larger")
    register.ended(conn, found.id, State.CLOSED, NOW)
    register.ended(conn, found.id, State.CLOSED, NOW + timedelta(days=1))  # repeated: as it was
    assert register.get(conn, found.number).ended_at == NOW
    with pytest.raises(UsageError, match="is closed"):
        register.ended(conn, found.id, State.CANCELLED, NOW)
    refused(conn, "UPDATE incident SET grade = 'general'")


def test_what_clocks_start_from_stands_in_the_first_entry(conn: Connection) -> None:
    """Of listed keys their number and digest alone; who changes the register is found out."""
    keys = ["courier/7", "courier/8"]
    found = opened(conn, began_at="2026-11-26T01:00", keys=keys, databases=["courier"])
    [entry] = timeline.entries(conn, found.id)
    assert entry.data["aware_at"] == "2026-11-25T19:05:00.000000+00:00"
    assert entry.data["began_at"] == "2026-11-25T17:00:00.000000+00:00"
    assert (entry.data["type"], entry.data["critical"]) == ("lost_device", False)
    digest = hashlib.sha256(b"courier/7\ncourier/8\n").hexdigest()
    listed = {"databases": ["courier"], "keys": {"count": 2, "sha256": digest}}
    assert entry.data["selection"] == listed
    assert register.changed(found, [entry]) == []
    for change, name in (
        ("aware_at = aware_at + interval '5 hours'", "aware_at"),
        ("clocks = '[]'", "rules_sha256"),
        ("kept = NULL", "rules_sha256"),
        ("state = 'cancelled', ended_at = now()", "state"),
        ("state = 'duplicate', duplicate_of = id", "duplicate_of"),
        ("selection = '{}'", "selection"),
    ):
        with conn.begin_nested() as point:
            conn.execute(text("SET LOCAL session_replication_role = replica"))
            conn.execute(text(f"UPDATE incident SET {change} WHERE id = {found.id}"))
            assert register.changed(register.get(conn, found.number), [entry]) == [name]
            point.rollback()
    old = replace(entry, data={"noticed_by": ""})
    assert register.changed(found, [old]) == []


def refused(conn: Connection, statement: str) -> None:
    with pytest.raises(IntegrityError, match="history"), conn.begin_nested():
        conn.execute(text(statement))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"aware_at": "2026-11-26T03:06+08:00"}, "aware_at is yet to come"),
        ({"aware_at": "2026-11-26T03:00", "began_at": "2026-11-26T03:01"}, "began_at is after"),
        ({"aware_at": "tonight"}, "aware_at is no moment"),
        ({"began_at": "9999-12-31T23:59:59-08:00"}, "began_at is no moment"),
        ({"type": "nothing"}, "type: there is none"),
        ({"what": " "}, "what says nothing"),
        ({"what": "13800138000"}, "what says nothing"),
        ({"keys": "courier/1\n13800138000"}, "keys, line 2,"),
        ({"departments": ["North", "138 0013 8000"]}, "departments, line 2, looks like a mobile"),
        ({"partner": "53010219200508011X"}, "partner looks like a mobile or ID number"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "until should be after since"),
        ({"databases": ["elsewhere"]}, "no database elsewhere"),
        ({"collections": ["courier.nothing"]}, "no records courier.nothing"),
        ({"tabletop": "none"}, "there is no scenario none"),
    ],
)
def test_a_form_that_cannot_be_used_names_the_field(more: dict[str, object], named: str) -> None:
    """And opens nothing."""
    with pytest.raises(UsageError, match=named):
        filled(**more)


def test_every_fault_of_a_form_is_named_at_once() -> None:
    """At three in the morning nobody wants to press three times."""
    with pytest.raises(UsageError, match="aware_at") as error:
        filled(aware_at="2027-01-01", type="nothing", what="")
    assert "type" in str(error.value)
    assert "what" in str(error.value)


def test_awareness_counts_in_the_zone_that_was_typed() -> None:
    """Without offset it is the pack's; empty is when Trigger was pressed."""
    assert filled(aware_at="2026-11-26T03:00").aware_at == datetime(2026, 11, 25, 19, tzinfo=UTC)
    assert filled(aware_at="2026-11-25T13:00-05:00").aware_at.hour == 18
    assert filled().aware_at == NOW


def test_what_people_write_is_kept_without_customers_numbers() -> None:
    """What happened, and who noticed."""
    found = filled(what="The phone 13800138000 leaked", noticed_by="a@b.example called")
    assert found.what == "The phone … leaked"
    assert found.noticed_by == "… called"
