"""Tests that an incident keeps the rules stored at its opening if the policy pack changes."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from include.incident import register, report, watch
from include.incident.incident_ids import Kind
from include.incident.rules import IncidentRules
from include.incident.time_limits.time_limit import time_limits_of
from include.policy.rules import Text
from tests.incident.incident_fixtures import COMP, Company, english, rules

NOT_THERE = ["lost_device", "larger", "cac"]


def another_pack() -> IncidentRules:
    """Return the rules of a changed policy pack.

    It has fewer incident types, other grades, one authority less, and another hotline of an
    authority.
    """
    shipped_rules = rules()
    types = tuple(item for item in shipped_rules.types if item.id not in NOT_THERE)
    grades = tuple(
        item.model_copy(update={"id": f"level_{index}", "people": 1})
        for index, item in enumerate(shipped_rules.grades)
    )
    postal = next(authority for authority in shipped_rules.authorities if authority.id == "postal")
    how: dict[str, Text] = {"en": "Call 12305", "zh-CN": "拨打 12305"}
    return shipped_rules.model_copy(
        update={
            "types": types,
            "grades": grades,
            "authorities": (postal.model_copy(update={"how": how}),),
            "clocks": shipped_rules.clocks[:1],
        }
    )


def test_incident_uses_rules_stored_at_its_opening_after_policy_pack_changes(
    company: Company,
) -> None:
    case = company.open(1, 2).until("grade", grade={"grade": "larger", "reason": "in the press"})
    before = [(item.id, item.due_at) for item in time_limits_of(case.context, case.record)]
    company.rules = another_pack()
    assert [(item.id, item.due_at) for item in time_limits_of(case.context, case.record)] == before
    assert "Lost" in case.page("contain").subject
    [choice] = [item for item in case.page("grade").form if item.name == "grade"]
    assert "larger" in choice.options
    assert "Call 12305" in case.page("report", authority="postal").body
    case.until("summary", grade={"grade": "larger", "reason": "in the press"})
    watch.settle_notifications(case.context)
    conclusion = report.conclude_incident(case.context, case.number, [])
    assert english(conclusion.summary).endswith("every time limit was met.")
    assert english(conclusion.facts[0].value) == "Larger"  # type: ignore[arg-type]
    assert case.entries(Kind.SCOPED)[-1].data["proposed"] == "general"


def test_changed_fields_returns_rules_digest_if_stored_rules_of_incident_were_changed(
    company: Company,
) -> None:
    case = company.open(1)
    with company.state.begin() as conn, pytest.raises(IntegrityError, match="is history"):
        conn.execute(text("UPDATE incident SET kept = NULL"))
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE incident SET kept = jsonb_set(kept, '{grades,0,people}', '7')"))
        incident = register.get_incident(conn, case.number)
    assert register.changed_fields(incident, case.record.entries) == ["rules_sha256"]


def test_incident_without_stored_rules_uses_rules_of_current_policy_pack(company: Company) -> None:
    case = company.open(1)
    with company.state.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("UPDATE incident SET kept = NULL"))
    company.rules = rules(grades=another_pack().grades)
    case.counted()
    assert case.entries(Kind.SCOPED)[-1].data["proposed"] == "level_3"
    case.answer("grade", COMP, grade="level_3")
    assert case.record.grade == "level_3"
    assert time_limits_of(case.context, case.record)
