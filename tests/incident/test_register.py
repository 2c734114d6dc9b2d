"""Tests that a form opens one incident, and that an incident ends once."""

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
from include.incident.incident_ids import Kind, State
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
    return form.read_trigger_form(GIVEN | more, RULES, NOW, ZONE)


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


def test_repeated_run_opens_no_second_incident(conn: Connection) -> None:
    first = opened(conn)
    assert opened(conn) == first
    assert (first.number, first.state, first.type) == ("INC-2026-0001", State.OPEN, "lost_device")
    assert [entry.kind for entry in timeline.entries(conn, first.id)] == [Kind.OPENED]


def test_second_run_with_same_form_registers_duplicate_of_first_incident(conn: Connection) -> None:
    first = opened(conn)
    duplicate = opened(conn, "manual__2", NOW + timedelta(minutes=3))
    assert (duplicate.state, duplicate.duplicate_of) == (State.DUPLICATE, first.number)
    assert not duplicate.requires_steps
    last_entry = timeline.entries(conn, first.id)[-1]
    assert (last_entry.kind, last_entry.data) == (Kind.PRESSED_AGAIN, {"number": duplicate.number})
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
def test_run_with_different_form_values_opens_another_incident(
    conn: Connection, more: dict[str, object]
) -> None:
    opened(conn)
    assert opened(conn, "manual__2", **more).state is State.OPEN


def test_same_form_after_duplicate_period_opens_another_incident(conn: Connection) -> None:
    first = opened(conn)
    assert opened(conn, "2", NOW + timedelta(hours=12)).state is State.OPEN
    register.end_incident(conn, first.id, State.CANCELLED, NOW)
    assert opened(conn, "3", NOW + timedelta(hours=1)).duplicate_of != first.number


def test_same_form_is_registered_as_duplicate_even_after_first_incident_was_closed(
    conn: Connection,
) -> None:
    first = opened(conn)
    register.end_incident(conn, first.id, State.CLOSED, NOW)
    duplicate = opened(conn, "2", NOW + timedelta(hours=1))
    assert (duplicate.state, duplicate.duplicate_of) == (State.DUPLICATE, first.number)


def test_number_of_incident_drill_starts_with_prefix_drill(conn: Connection) -> None:
    assert RULES is not None
    drill = opened(conn, "drill", tabletop=RULES.scenarios[0].id)
    assert drill.number.startswith("DRILL-2026-")


@pytest.mark.parametrize(("days", "same"), [(27.9, True), (28.1, False)])
def test_duplicate_period_of_one_month_ends_after_28_days_in_february(
    conn: Connection, days: float, same: bool
) -> None:
    assert RULES is not None
    monthly = RULES.model_copy(update={"duplicate_within": Period.parse("P1M")})
    first = datetime(2026, 2, 1, 1, tzinfo=UTC)
    incidents = [
        register.open_incident(
            conn, form.read_trigger_form(GIVEN, monthly, at, ZONE), monthly,
            Run("respond_to_incident", str(at)), by="", clock=FixedClock(at), zone=ZONE, year=2026,
        )
        for at in (first, first + timedelta(days=days))
    ]  # fmt: skip
    assert (incidents[1].state is State.DUPLICATE) == same


def test_awareness_time_of_incident_drill_is_computed_with_calendar_months() -> None:
    assert RULES is not None
    scenario = RULES.scenarios[0].model_copy(update={"aware_before": Period.parse("P1M1DT1H")})
    rules = RULES.model_copy(update={"scenarios": (scenario,)})
    pressed = datetime(2026, 3, 31, 5, tzinfo=UTC)
    filled_form = form.read_trigger_form({"tabletop": scenario.id}, rules, pressed, ZONE)
    assert filled_form.aware_at == datetime(2026, 2, 27, 4, tzinfo=UTC)
    parameters = {"tabletop": scenario.id, "aware_at": "2026-03-30T08:00"}
    assert form.read_trigger_form(parameters, rules, pressed, ZONE).aware_at == datetime(
        2026, 3, 30, tzinfo=UTC
    )


def test_concurrent_triggers_with_same_form_open_one_incident(state: Engine) -> None:
    def press(run: str) -> Incident:
        with state.begin() as conn:
            return opened(conn, run, year=2031, what="Two pressed at once")

    with ThreadPoolExecutor(8) as pool:
        incidents = list(pool.map(press, map(str, range(8))))
    assert sorted(incident.state for incident in incidents) == [State.DUPLICATE] * 7 + [State.OPEN]
    assert sorted(incident.number for incident in incidents) == [
        f"INC-2031-{n:04d}" for n in range(1, 9)
    ]


def test_update_or_delete_of_initial_facts_in_incident_register_raises_integrity_error(
    conn: Connection,
) -> None:
    incident = opened(conn)
    for change in ("aware_at = now()", "type = 'ransomware'", "clocks = '[]'"):
        refused(conn, f"UPDATE incident SET {change}")
    refused(conn, "DELETE FROM incident")
    refused(conn, "TRUNCATE incident CASCADE")
    register.set_grade(conn, incident.id, "larger")
    register.end_incident(conn, incident.id, State.CLOSED, NOW)
    register.end_incident(
        conn, incident.id, State.CLOSED, NOW + timedelta(days=1)
    )  # closed again: the first time is kept
    assert register.get_incident(conn, incident.number).ended_at == NOW
    with pytest.raises(UsageError, match="is closed"):
        register.end_incident(conn, incident.id, State.CANCELLED, NOW)
    refused(conn, "UPDATE incident SET grade = 'general'")


def test_changed_fields_returns_register_fields_that_differ_from_first_timeline_entry(
    conn: Connection,
) -> None:
    keys = ["courier/7", "courier/8"]
    incident = opened(conn, began_at="2026-11-26T01:00", keys=keys, databases=["courier"])
    [entry] = timeline.entries(conn, incident.id)
    assert entry.data["aware_at"] == "2026-11-25T19:05:00.000000+00:00"
    assert entry.data["began_at"] == "2026-11-25T17:00:00.000000+00:00"
    assert (entry.data["type"], entry.data["critical"]) == ("lost_device", False)
    digest = hashlib.sha256(b"courier/7\ncourier/8\n").hexdigest()
    listed = {"databases": ["courier"], "keys": {"count": 2, "sha256": digest}}
    assert entry.data["selection"] == listed
    assert register.changed_fields(incident, [entry]) == []
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
            conn.execute(text(f"UPDATE incident SET {change} WHERE id = {incident.id}"))
            assert register.changed_fields(
                register.get_incident(conn, incident.number), [entry]
            ) == [name]
            point.rollback()
    old = replace(entry, data={"noticed_by": ""})
    assert register.changed_fields(incident, [old]) == []


def refused(conn: Connection, statement: str) -> None:
    with pytest.raises(IntegrityError, match="history"), conn.begin_nested():
        conn.execute(text(statement))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"aware_at": "2026-11-26T03:06+08:00"}, "aware_at is in the future"),
        ({"aware_at": "2026-11-26T03:00", "began_at": "2026-11-26T03:01"}, "began_at is after"),
        ({"aware_at": "tonight"}, "aware_at is not a valid time"),
        ({"began_at": "9999-12-31T23:59:59-08:00"}, "began_at is not a valid time"),
        ({"type": "nothing"}, "type: the type nothing does not"),
        ({"what": " "}, "what contains no words"),
        ({"what": "13800138000"}, "what contains no words"),
        ({"keys": "courier/1\n13800138000"}, "keys, line 2,"),
        ({"departments": ["North", "138 0013 8000"]}, "departments, line 2, looks like a mobile"),
        ({"partner": "53010219200508011X"}, "partner looks like a mobile or ID number"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "until should be after since"),
        ({"databases": ["elsewhere"]}, "no database elsewhere"),
        ({"collections": ["courier.nothing"]}, "no records courier.nothing"),
        ({"tabletop": "none"}, "the scenario none does not exist"),
    ],
)
def test_error_for_invalid_form_contains_the_invalid_field(
    more: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        filled(**more)


def test_error_for_invalid_form_lists_all_invalid_fields() -> None:
    with pytest.raises(UsageError, match="aware_at") as error:
        filled(aware_at="2027-01-01", type="nothing", what="")
    assert "type" in str(error.value)
    assert "what" in str(error.value)


def test_entered_time_of_awareness_is_interpreted_with_its_utc_offset() -> None:
    assert filled(aware_at="2026-11-26T03:00").aware_at == datetime(2026, 11, 25, 19, tzinfo=UTC)
    assert filled(aware_at="2026-11-25T13:00-05:00").aware_at.hour == 18
    assert filled().aware_at == NOW


def test_phone_number_and_mail_address_in_incident_form_are_redacted() -> None:
    filled_form = filled(what="The phone 13800138000 leaked", noticed_by="a@b.example called")
    assert filled_form.what == "The phone … leaked"
    assert filled_form.noticed_by == "… called"
