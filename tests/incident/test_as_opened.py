"""An incident is measured by the rules of the day it was opened, whatever the pack says since."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from include.incident import register, report, watching
from include.incident.clocks.clock import clocks_of
from include.incident.names import Kind
from include.incident.rules import IncidentRules
from include.policy.rules import Text
from tests.incident.desk_rig import COMP, Company, english, rules

NOT_THERE = ["lost_device", "larger", "cac"]


def another_pack() -> IncidentRules:
    """A year later: another type, other grades, the postal administration alone, a new hotline."""
    now = rules()
    types = tuple(one for one in now.types if one.id not in NOT_THERE)
    grades = tuple(
        one.model_copy(update={"id": f"level_{place}", "people": 1})
        for place, one in enumerate(now.grades)
    )
    postal = next(one for one in now.authorities if one.id == "postal")
    how: dict[str, Text] = {"en": "Call 12305", "zh-CN": "拨打 12305"}
    return now.model_copy(
        update={
            "types": types,
            "grades": grades,
            "authorities": (postal.model_copy(update={"how": how}),),
            "clocks": now.clocks[:1],
        }
    )


def test_an_incident_goes_on_by_the_rules_it_was_opened_under(company: Company) -> None:
    """Its grades, clocks and authorities are those; a hotline is called by its number of today."""
    case = company.open(1, 2).until("grade", grade={"grade": "larger", "reason": "in the press"})
    before = [(one.id, one.due_at) for one in clocks_of(case.context, case.record)]
    company.rules = another_pack()
    assert [(one.id, one.due_at) for one in clocks_of(case.context, case.record)] == before
    assert "Lost" in case.page("contain").subject
    [choice] = [one for one in case.page("grade").form if one.name == "grade"]
    assert "larger" in choice.options
    assert "Call 12305" in case.page("report", authority="postal").body
    case.until("summary", grade={"grade": "larger", "reason": "in the press"})
    watching.settle(case.context)
    found = report.conclude_incident(case.context, case.number, [])
    assert english(found.summary).endswith("everything that was due was done in time.")
    assert english(found.facts[0].value) == "Larger"  # type: ignore[arg-type]
    assert case.entries(Kind.SCOPED)[-1].data["proposed"] == "general"


def test_rules_that_were_changed_in_the_register_are_told(company: Company) -> None:
    """They stand in the first entry, as the clocks do."""
    case = company.open(1)
    with company.state.begin() as conn, pytest.raises(IntegrityError, match="is history"):
        conn.execute(text("UPDATE incident SET kept = NULL"))
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE incident SET kept = jsonb_set(kept, '{grades,0,people}', '7')"))
        found = register.get(conn, case.number)
    assert register.changed(found, case.record.entries) == ["rules_sha256"]


def test_an_incident_that_kept_none_goes_on_by_those_of_today(company: Company) -> None:
    """It was opened before they were kept; its clocks were."""
    case = company.open(1)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE incident SET kept = NULL"))
    company.rules = rules(grades=another_pack().grades)
    case.counted()
    assert case.entries(Kind.SCOPED)[-1].data["proposed"] == "level_3"
    case.answer("grade", COMP, grade="level_3")
    assert case.record.grade == "level_3"
    assert clocks_of(case.context, case.record)
