"""The work list: findings of all workflows and required actions, overdue items first."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from include.evidence.model import Outcome
from include.findings.register import Acceptance, Finding, State
from include.messages import verbatim
from plugins.compliance_ui import work_list
from plugins.compliance_ui.required_actions import RequiredAction
from plugins.compliance_ui.work_list import View, WorkItem
from tests.plugins.company import NOW, PACK
from tests.plugins.pages_server import PagesServer
from tests.support.fab import ADMIN, account_of

pytestmark = pytest.mark.airflow
ZONE = ZoneInfo("Asia/Shanghai")
TODAY = datetime(2026, 12, 1, 9, tzinfo=ZONE)
OFFICER, ON_CALL = "Compliance Officer", "On Call"
RUN = "manual__with.a.real.deadline"
INSERT = """
    WITH task AS (
        UPDATE task_instance SET state = 'awaiting_input'
        WHERE dag_id = 'enforce_retention' AND run_id = %s AND task_id LIKE %s RETURNING id
    )
    INSERT INTO hitl_detail
        (ti_id, options, subject, multiple, params, assignees, created_at, params_input)
    SELECT id, '["Approve"]', 'Review', false, %s, %s, now(), '{}' FROM task LIMIT 1
"""


def finding_of(number: int, days: int, owner: str = "compliance", **more: Any) -> Finding:
    """Return an open finding that is due a number of days from now."""
    fields: dict[str, Any] = {
        "id": number,
        "kind": "audit",
        "reference": "2026Q3/accesses/1/approved",
        "description": verbatim(f"finding {number}"),
        "owner": owner,
        "opened_at": TODAY - timedelta(days=30),
        "due_on": TODAY.date() + timedelta(days=days),
        "first_due_on": TODAY.date() + timedelta(days=days),
        "due_date_changes": 0,
        "state": State.OPEN,
    }
    return Finding(**fields | more)


def item_of(finding: Finding, *roles: str, user: str = "cai") -> WorkItem:
    visitor: Any = SimpleNamespace(ids=frozenset({user}))
    return work_list._finding_item(PACK, visitor, frozenset(roles), finding, TODAY)


def action_of(hours: int | None, *, is_mine: bool = False) -> WorkItem:
    due_at = None if hours is None else TODAY + timedelta(hours=hours)
    action = RequiredAction(
        verbatim("Review a batch"),
        verbatim("Intake"),
        TODAY,
        due_at,
        due_at,
        ("li",),
        is_mine,
        "/x",
    )
    return work_list._action_item(action, TODAY)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_list, "name_of", lambda account: f"Name of {account}")


def test_work_list_shows_overdue_items_first_and_items_without_deadline_last() -> None:
    items = [
        item_of(finding_of(1, 5)),
        action_of(None),
        action_of(-3),
        item_of(finding_of(2, -2)),
        action_of(2),
        item_of(finding_of(3, 0)),
    ]
    ordered = sorted(items, key=work_list._urgency)
    assert [item.is_overdue for item in ordered] == [True, True, False, False, False, False]
    deadlines = [item.due_at for item in ordered]
    assert deadlines[-1] is None
    assert deadlines[:2] == sorted(filter(None, deadlines[:2]))
    assert deadlines[2:-1] == sorted(filter(None, deadlines[2:-1]))


@pytest.mark.parametrize(
    ("finding", "roles", "views"),
    [
        (finding_of(1, 5), ("compliance",), {View.ALL, View.DEPARTMENT, View.MINE}),
        (finding_of(1, 5), ("management",), {View.ALL}),
        (finding_of(1, 5, assignee="mia"), ("compliance",), {View.ALL, View.DEPARTMENT}),
        (finding_of(1, 5, assignee="cai"), (), {View.ALL, View.DEPARTMENT, View.MINE}),
        (finding_of(1, 5, owner="removed"), ("compliance",), {View.ALL}),
    ],
    ids=["own role", "other role", "assigned to a colleague", "assigned to me", "role removed"],
)
def test_finding_is_in_the_views_of_the_people_who_are_responsible(
    finding: Finding, roles: tuple[str, ...], views: set[View]
) -> None:
    item = item_of(finding, *roles)
    assert {view for view in View if item.is_in(view)} == views


def test_item_of_an_accepted_risk_is_not_overdue_and_names_the_last_day() -> None:
    accepted = Acceptance(date(2026, 12, 24), Outcome.FAIL, "mia", "small")
    item = item_of(finding_of(1, -9, acceptance=accepted))
    assert not item.is_overdue
    assert item.state.values == {"day": date(2026, 12, 24)}


def test_item_names_the_assigned_person_and_the_title_of_the_owner() -> None:
    item = item_of(finding_of(1, 5, assignee="li.na"))
    assert item.people == ("Name of li.na",)
    assert item.owner is not None
    assert item.owner.text == "Compliance"


def test_page_lists_findings_that_runs_reported_with_their_workflow(
    pages_server: PagesServer,
) -> None:
    page = pages_server.get(OFFICER, "/findings").text
    for finding in pages_server.company.findings().values():
        assert f'href="/compliance/findings/{finding.id}"' in page
    assert "will be closed by the next complete run that does not report it" in page
    assert "<script>document" not in page


def test_finding_page_shows_action_owner_due_date_and_evidence(pages_server: PagesServer) -> None:
    finding = next(
        entry
        for entry in pages_server.company.findings().values()
        if entry.origin is not None and entry.origin.workflow == "backup_offsite"
    )
    page = pages_server.get(OFFICER, f"/findings/{finding.id}").text
    assert "<script>document" not in page
    for text in ("What to do", "Data engineering", str(finding.due_on), "4.2", "For engineers"):
        assert text in page
    assert finding.origin is not None
    seq = next(
        row.seq for row in pages_server.company.rows() if row.bundle == finding.origin.opened_in
    )
    assert f'href="/compliance/evidence/{seq}"' in page


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_page_of_every_finding_in_the_work_list_opens(
    pages_server: PagesServer, language: str
) -> None:
    for number in pages_server.company.findings():
        assert pages_server.get(OFFICER, f"/findings/{number}", language).status_code == 200


@pytest.mark.parametrize("number", ["99999999", "99999999999999999999"])
def test_finding_page_of_an_unknown_number_is_not_found(
    pages_server: PagesServer, number: str
) -> None:
    assert pages_server.get(OFFICER, f"/findings/{number}").status_code == 404


def test_unknown_view_of_the_work_list_is_refused(pages_server: PagesServer) -> None:
    assert pages_server.get(OFFICER, "/findings?view=theirs").status_code == 400


def test_required_action_shows_deadline_of_the_work_instead_of_airflow_timeout(
    pages_server: PagesServer,
) -> None:
    """A badge in the navigation counts the item for the person who may answer."""
    server = pages_server.airflow
    answer = server.session(ADMIN).post(
        f"{server.url}/api/v2/dags/enforce_retention/dagRuns",
        json={"dag_run_id": RUN, "logical_date": None, "conf": {}},
        timeout=120,
    )
    assert answer.ok, answer.text
    due_at = (NOW - timedelta(hours=1)).isoformat(timespec="seconds")
    params = {"due_at": {"value": due_at, "schema": {"const": due_at}}}
    person = account_of(OFFICER)
    assigned = [{"id": person, "name": person}]
    with psycopg.connect(server.database) as connection:
        values = [RUN, "%approve%", json.dumps(params), json.dumps(assigned)]
        assert connection.execute(INSERT, values).rowcount == 1
    page = pages_server.get(OFFICER, "/findings?view=mine").text
    [row] = [part for part in page.split("<tr") if "Review" in part]
    assert "overdue" in row
    local = datetime.fromisoformat(due_at).astimezone(ZONE).strftime("%Y-%m-%d %H:%M")
    assert local in row
    assert re.search(r'class="badge">\d+<', page) is not None
    assert "Review" not in pages_server.get(ON_CALL, "/findings?view=mine").text
