"""The step that records comments and decisions about findings, as a person entered them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from include.evidence.step_findings import StepFindings
from include.finding_updates.enter import CLAUSE, EnteredUpdate, enter_update, role_of
from include.finding_updates.form import Action
from include.findings import register
from include.findings.register import Finding
from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy import SHIPPED, PolicyPack
from include.registry import load_pack, workflow
from include.service_container import Services
from include.services.clock import FixedClock
from include.services.errors import CouldNotRun, UsageError
from include.state.connect import engine
from include.workflow.run_context import RunContext, TaskState
from tests.support.contexts import services_of
from tests.support.databases import temporary_database

NOW = datetime(2026, 12, 1, 2, tzinfo=UTC)
DUE = date(2026, 12, 15)
PEOPLE = {"data_engineering": ("dora",), "compliance": ("cai",), "management": ("mia",)}


@pytest.fixture(scope="module")
def pack() -> PolicyPack:
    """Return the shipped policy pack with people in three roles."""
    shipped = load_pack(SHIPPED)
    roles = {
        name: role.model_copy(update={"accounts": PEOPLE.get(name, ())})
        for name, role in shipped.roles.items()
    }
    return shipped.model_copy(update={"roles": roles})


@pytest.fixture(scope="module")
def state(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Engine]:
    """Yield a state database."""
    with temporary_database(postgres, migrated_once) as name:
        yield engine(postgres.conninfo(name))


@pytest.fixture(scope="module")
def services(pack: PolicyPack, state: Engine) -> Services:
    return services_of(pack, {}, state, FixedClock(NOW))


@pytest.fixture
def number(state: Engine, request: pytest.FixtureRequest) -> int:
    """Return the number of an open finding of the data engineers."""
    return opened(state, request.node.name)


def opened(state: Engine, reference: str, kind: str = "audit") -> int:
    with state.begin() as conn:
        return register.open_finding(
            conn,
            kind=kind,
            reference=reference,
            description=verbatim("Item a1: no"),
            owner="data_engineering",
            opened_at=NOW - timedelta(days=3),
            due_on=DUE,
        )


def entered(services: Services, by: str | None, at: datetime = NOW, **form: Any) -> EnteredUpdate:
    """Run the step with a form that names the present version of the finding."""
    version = ""
    with services.state.connect() as conn, suppress(UsageError, KeyError):
        version = register.get_finding(conn, form["finding"]).version
    run: RunContext[None] = RunContext(
        services,
        None,
        Run("update_finding", "manual"),
        triggered_by=by,
        parameters={"words": "Agreed with the department", "version": version, **form},
        task=replace(TaskState(), triggered_at=at),
    )
    return enter_update(run, StepFindings("enter", CLAUSE))


def read(state: Engine, number: int) -> Finding:
    with state.connect() as conn:
        return register.get_finding(conn, number)


def events(state: Engine, number: int) -> int:
    query = text("SELECT count(*) FROM finding_event WHERE finding_id = :number")
    with state.connect() as conn:
        return int(conn.scalar(query, {"number": number}) or 0)


def test_comment_is_recorded_with_person_and_time_of_the_form(
    services: Services, state: Engine, number: int
) -> None:
    result = entered(services, "dora", finding=number, action="comment")
    assert (result.finding, result.action, result.by) == (number, Action.COMMENT, "dora")
    [comment] = read(state, number).comments
    assert (comment.by, comment.at, comment.text) == ("dora", NOW, "Agreed with the department")


def test_answer_states_cause_corrective_action_and_later_due_date(
    services: Services, state: Engine, number: int
) -> None:
    form = {"action": "answer", "cause": "The form is old", "until": "2026-12-20"}
    entered(services, "dora", finding=number, **form)
    finding = read(state, number)
    assert (finding.cause, finding.action) == ("The form is old", "Agreed with the department")
    assert finding.due_on == date(2026, 12, 20)


@pytest.mark.parametrize("owner", ["management", "Management", "公司管理层"])
def test_new_owner_is_named_by_id_or_by_title_in_any_language(
    services: Services, state: Engine, owner: str
) -> None:
    number = opened(state, f"owner {owner}")
    form = {"action": "reassign", "owner": owner, "assignee": "mia"}
    assert entered(services, "cai", finding=number, **form).owner == "management"
    assert read(state, number).assignee == "mia"


def test_risk_is_accepted_until_a_day_and_the_acceptance_is_withdrawn(
    services: Services, state: Engine, number: int
) -> None:
    entered(services, "mia", finding=number, action="accept", until="2027-03-01")
    assert read(state, number).is_accepted(date(2027, 3, 1))
    entered(services, "mia", NOW + timedelta(hours=1), finding=number, action="withdraw")
    assert not read(state, number).is_accepted(NOW.date())


@pytest.mark.parametrize("action", list(Action))
def test_repeated_task_records_nothing_more(
    services: Services, state: Engine, action: Action
) -> None:
    """A killed attempt may have recorded the entry, and the task then starts again."""
    number = opened(state, f"repeated {action}")
    if action is Action.WITHDRAW:
        entered(services, "mia", finding=number, action="accept", until="2027-03-01")
    before = events(state, number)
    form = {
        "cause": "old",
        "owner": "compliance",
        "until": "2027-03-01",
        "version": read(state, number).version,
    }
    for _attempt in range(2):
        entered(
            services, "mia", NOW + timedelta(minutes=5), finding=number, action=str(action), **form
        )
    assert events(state, number) == before + 1


@pytest.mark.parametrize(
    ("by", "form", "message"),
    [
        (None, {"action": "comment"}, "No person triggered this run"),
        ("eve", {"action": "comment"}, "eve may not comment"),
        ("eve", {"action": "answer", "cause": "old"}, "eve may not answer"),
        ("dora", {"action": "accept", "until": "2027-03-01"}, "dora may not accept"),
        ("mia", {"action": "accept"}, "The last day is missing"),
        (
            "mia",
            {"action": "accept", "until": "2027-03-01", "version": ""},
            "version of the finding",
        ),
        ("mia", {"action": "accept", "until": "2027-03-01", "version": "9-fail"}, "has changed"),
        ("mia", {"action": "accept", "until": "2027-02-30"}, "2027-02-30 is not a date"),
        ("mia", {"action": "accept", "until": "2026-11-30"}, "not a permitted last day"),
        ("cai", {"action": "reassign", "owner": "legal"}, "no such department"),
        ("cai", {"action": "reassign", "owner": "compliance", "assignee": "eve"}, "not list eve"),
        ("dora", {"action": "answer"}, "The cause contains no words"),
        ("dora", {"action": "comment", "words": " ... "}, "contains no words"),
    ],
)
def test_wrong_field_or_person_is_refused_and_nothing_is_recorded(
    services: Services,
    state: Engine,
    number: int,
    by: str | None,
    form: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(CouldNotRun, match=message):
        entered(services, by, finding=number, **form)
    assert events(state, number) == 0


@pytest.mark.parametrize("kind", ["incident"])
def test_finding_of_an_incident_is_refused_because_its_texts_are_confidential(
    services: Services, state: Engine, kind: str
) -> None:
    number = opened(state, "INC-2026-0001/1", kind)
    with pytest.raises(CouldNotRun, match="confidential"):
        entered(services, "dora", finding=number, action="comment")


def test_unknown_finding_is_refused(services: Services) -> None:
    with pytest.raises(CouldNotRun, match="There is no finding 99999"):
        entered(services, "dora", finding=99999, action="comment")


def test_form_without_number_of_the_finding_is_refused(services: Services) -> None:
    with pytest.raises(CouldNotRun, match="number of the finding is missing"):
        entered(services, "dora", action="comment")


def test_role_of_unknown_name_lists_the_departments(pack: PolicyPack) -> None:
    with pytest.raises(UsageError) as refusal:
        role_of(pack, "")
    assert "Compliance" in refusal.value.action


def test_runs_of_the_workflow_leave_findings_that_no_later_run_closes() -> None:
    assert workflow("update_finding").findings_need_retest
