"""Whom workflows would ask is held against who could answer, before the first question waits."""

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
    from include.orchestration.access.asked import look

    return [one.obstacle for one in look(session, {workflow: accounts}, ROLES)]


def test_who_has_a_role_that_answers_could(session: Session) -> None:
    """For each workflow that asks and each of its roles; Admin by FAB's own rights."""
    for role in ROLES:
        for workflow in role.answers:
            assert obstacles(session, workflow, account_of(role.name)) == [""]
    assert obstacles(session, "sample_audit", account_of(ADMIN)) == [""]


def test_who_could_not_is_told_what_is_missing(session: Session) -> None:
    """A user, or one of the roles that would do."""
    found = obstacles(session, "enforce_retention", "E99999", account_of("Auditor"))
    assert found == ["has no user in Airflow", "needs the role Compliance Officer"]
    found = obstacles(session, "sample_audit", account_of("Compliance Officer"))
    assert found == ["needs the role Audit Seed"]


def test_who_may_not_log_in_could_not(session: Session) -> None:
    """Whoever left and was deactivated still has roles."""
    from airflow.providers.fab.auth_manager.models import User

    query = select(User).where(User.username == account_of("On Call"))
    session.scalars(query).unique().one().active = False
    session.flush()
    found = obstacles(session, "respond_to_incident", account_of("On Call"))
    assert found == ["is not active in Airflow"]


def test_a_duty_that_nobody_could_answer_for_is_told() -> None:
    """One person is enough for each; who could answer for another duty does not help."""
    from include.orchestration.access.asked import AskedPerson, unanswerable

    found = [
        AskedPerson("enforce_retention", "a", ""),
        AskedPerson("enforce_retention", "b", "has no user in Airflow"),
        AskedPerson("respond_to_incident", "a", ""),
        AskedPerson("respond_to_incident", "c", "needs the role On Call"),
    ]
    duties = {
        "enforce_retention": [["a", "b"]],
        "respond_to_incident": [["a"], ["c"]],
        "review_intake": [[]],  # nobody is there at all
    }
    assert unanswerable(duties, found) == ["respond_to_incident", "review_intake"]
    assert unanswerable({"respond_to_incident": [["a"], ["c", "a"]]}, found) == []
