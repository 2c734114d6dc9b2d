"""Check before the first required action that the people whom workflows ask can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from include.orchestration.access.roles import ROLES
from tests.support.fab import ADMIN, account_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytestmark = pytest.mark.airflow


def obstacles(session: Session, workflow: str, *accounts: str) -> list[str]:
    from include.orchestration.access.respondents import check_respondents

    return [person.obstacle for person in check_respondents(session, {workflow: accounts}, ROLES)]


def test_check_respondents_accepts_each_role_that_may_answer(session: Session) -> None:
    for role in ROLES:
        for workflow in role.answers:
            assert obstacles(session, workflow, account_of(role.name)) == [""]
    assert obstacles(session, "sample_audit", account_of(ADMIN)) == [""]


def test_check_respondents_reports_which_user_or_role_is_missing(session: Session) -> None:
    reasons = obstacles(session, "enforce_retention", "E99999", account_of("Auditor"))
    assert reasons == ["has no user in Airflow", "needs the role Compliance Officer"]
    reasons = obstacles(session, "sample_audit", account_of("Compliance Officer"))
    assert reasons == ["needs the role Audit Seed"]


def test_check_respondents_reports_deactivated_user(session: Session) -> None:
    """A deactivated user still has roles, but cannot log in."""
    from airflow.providers.fab.auth_manager.models import User

    query = select(User).where(User.username == account_of("On Call"))
    session.scalars(query).unique().one().active = False
    session.flush()
    reasons = obstacles(session, "respond_to_incident", account_of("On Call"))
    assert reasons == ["is not active in Airflow"]


def test_unanswerable_returns_workflows_with_a_duty_for_which_nobody_is_able_to_answer() -> None:
    """A person who can answer only for another duty of the workflow does not change the result."""
    from include.orchestration.access.respondents import AskedPerson, unanswerable

    people = [
        AskedPerson("enforce_retention", "a", ""),
        AskedPerson("enforce_retention", "b", "has no user in Airflow"),
        AskedPerson("respond_to_incident", "a", ""),
        AskedPerson("respond_to_incident", "c", "needs the role On Call"),
    ]
    duties = {
        "enforce_retention": [["a", "b"]],
        "respond_to_incident": [["a"], ["c"]],
        "review_intake": [[]],  # no accounts at all
    }
    assert unanswerable(duties, people) == ["respond_to_incident", "review_intake"]
    assert unanswerable({"respond_to_incident": [["a"], ["c", "a"]]}, people) == []
