"""Waiting for you: whose question it is, and who sees that there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import psycopg
import pytest

from tests.plugins.shown import Shown
from tests.support.fab import ADMIN, account_of

pytestmark = pytest.mark.airflow
DAG, STEP = "enforce_retention", "approve"
SUBJECT = "May these records go? <script>alert(1)</script>"
OFFICER, REVIEWER, MANAGEMENT = (
    "Compliance Officer",  # answers this workflow
    "Information Management Reviewer",  # reads it, and answers others
    "Management",  # likewise
)
ASK = """
    WITH task AS (
        UPDATE task_instance SET state = 'awaiting_input'
        WHERE dag_id = %s AND run_id = %s AND task_id LIKE %s RETURNING id
    )
    INSERT INTO hitl_detail
        (ti_id, options, subject, multiple, params, assignees, created_at, params_input)
    SELECT id, '["Approve", "Reject"]', %s, false, '{}', %s, now(), '{}' FROM task LIMIT 1
"""
RUN = "manual__for.the+list"


@pytest.fixture(scope="module", autouse=True)
def run(shown: Shown) -> None:
    """A run that nothing executes."""
    answer = shown.airflow.session(ADMIN).post(
        f"{shown.airflow.url}/api/v2/dags/{DAG}/dagRuns",
        json={"dag_run_id": RUN, "logical_date": None, "conf": {}},
        timeout=120,
    )
    assert answer.ok, answer.text


def ask(shown: Shown, people: Sequence[str]) -> None:
    """Put the question before people, in place of an earlier one."""
    assigned = json.dumps([{"id": one, "name": one} for one in people])
    with psycopg.connect(shown.airflow.database) as connection:
        connection.execute("DELETE FROM hitl_detail WHERE subject = %s", [SUBJECT])
        done = connection.execute(ASK, [DAG, RUN, f"%{STEP}%", SUBJECT, assigned or None])
        assert done.rowcount == 1


def lists(shown: Shown, role: str) -> tuple[bool, bool]:
    """Whether it stands among the visitor's own questions, and among those of others."""
    page = shown.get(role, "/waiting").text
    assert "<script>alert" not in page
    own, _heading, others = page.partition("<h2>Waiting for others</h2>")
    words = "May these records go?"
    return words in own, words in others


def test_a_question_is_of_those_whom_it_names(shown: Shown) -> None:
    """Who is named sees it as theirs; who may only read the workflow sees whose it is."""
    ask(shown, [account_of(OFFICER)])
    assert lists(shown, OFFICER) == (True, False)
    assert lists(shown, REVIEWER) == (False, True)
    assert lists(shown, MANAGEMENT) == (False, True)
    link = f'href="/dags/{DAG}/runs/manual__for.the%2Blist/tasks/'
    assert link in shown.get(OFFICER, "/waiting").text


def test_who_may_not_read_the_workflow_does_not_hear_of_it(shown: Shown) -> None:
    """Not even where the question names them."""
    ask(shown, [account_of("On Call")])
    assert lists(shown, "On Call") == (False, False)


def test_a_question_of_a_workflow_whose_questions_are_hidden_is_not_told(shown: Shown) -> None:
    """Audit Seed opens the page, and reads no deletion."""
    ask(shown, [account_of("Audit Seed")])
    assert lists(shown, "Audit Seed") == (False, False)


def test_nobodys_question_is_of_those_who_may_answer(shown: Shown) -> None:
    """Named or not: whoever's roles let them answer nothing of this workflow is not told to."""
    ask(shown, [])
    assert lists(shown, OFFICER) == (True, False)
    assert lists(shown, REVIEWER) == (False, True)
    ask(shown, [account_of(MANAGEMENT)])
    assert lists(shown, MANAGEMENT) == (False, True)
