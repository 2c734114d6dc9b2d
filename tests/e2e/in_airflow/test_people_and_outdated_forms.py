"""Test in a running Airflow that an answer is accepted only for the content that was shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from include.approvals import registry
from include.cli.answers import PATIENCE
from include.evidence.step_findings import steps_of
from include.local.airflow_api import AirflowApi
from tests.e2e.in_airflow.conftest import REVIEWER
from tests.e2e.running import RUNS, Running, patch, path_of, until

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1200)]

DAG = "review_intake"
SECONDS = 240  # a busy machine is slow
BATCH = "IN-000006"  # left pending by test_people.py
OTHER_BATCH = "IN-000007"  # waits for review until the tests end, so that the run is not sealed
RECORDS = 23  # records of the batch, after one was moved to the other batch


@dataclass
class Review:
    """The review of a batch in a running Airflow.

    Attributes:
        api: REST API with the administrator's login.
        reviewer: REST API with the login of the reviewer who answers.
        task: task instance of the review.
    """

    api: AirflowApi
    reviewer: AirflowApi
    task: dict[str, Any]

    @property
    def path(self) -> str:
        """Return the path of the task in the REST API."""
        return path_of(self.task)

    def form(self) -> dict[str, Any]:
        """Return the values of the form that Airflow shows at present."""
        shown = self.detail()["params"]
        return {name: field["value"] for name, field in shown.items()}

    def detail(self) -> dict[str, Any]:
        """Return the required action that Airflow shows at present."""
        return self.api.call("GET", f"{self.path}/hitlDetails")

    def waits(self) -> bool:
        """Return whether the task waits for an answer."""
        return bool(self.api.call("GET", self.path)["state"] == "awaiting_input")

    def answer(self, form: dict[str, Any], option: str = "Approve") -> None:
        """Choose an option with the values of a form, after the time that a person needs."""
        time.sleep(PATIENCE)
        assert patch(self.reviewer, self.path, option, form) == 200

    def asked_again(self, created_at: str) -> None:
        """Wait until Airflow shows a form that was created after a given time."""
        until(
            lambda: self.waits() and self.detail()["created_at"] > created_at,
            "the step asks again",
            SECONDS,
        )


def waiting(api: AirflowApi, batch: str) -> dict[str, Any] | None:
    """Return the required action of a batch that waits for an answer, or None."""
    answer = api.call("GET", f"{RUNS.format(DAG)}/~/hitlDetails?response_received=false&limit=100")
    details: list[dict[str, Any]] = answer["hitl_details"]
    for detail in details:
        if batch in detail["subject"] and detail["task_instance"]["state"] == "awaiting_input":
            return detail
    return None


def asked(running: Running, api: AirflowApi, batch: str) -> Review:
    """Wait until the review of a batch waits for an answer, and return the review."""
    until(lambda: waiting(api, batch) is not None, f"the review of {batch} waits", SECONDS)
    action = waiting(api, batch)
    assert action is not None
    return Review(api, running.airflow.api_as(REVIEWER), action["task_instance"])


@pytest.fixture(scope="module")
def review(running: Running, api: AirflowApi) -> Iterator[Review]:
    """A review that waits for an answer, with the form that the first check made.

    A second batch of the run waits too and is rejected at the end. The run therefore stays unsealed
    during the tests, because a sealed run repeats none of its tasks.
    """
    with running.courier() as conn:
        conn.execute(
            "UPDATE intake_record SET batch_id = %s WHERE intake_id = "
            "(SELECT max(intake_id) FROM intake_record WHERE batch_id = %s)",
            [OTHER_BATCH, BATCH],
        )
    api.trigger(DAG)
    yield asked(running, api, BATCH)
    other = asked(running, api, OTHER_BATCH)
    other.answer(other.form(), "Reject")
    running.ended(api, DAG, other.task["dag_run_id"])


def repeat_check(running: Running, review: Review) -> None:
    """Change a record of the batch, and repeat only the check task while the review waits."""
    with running.courier() as conn:
        conn.execute(
            "UPDATE intake_record SET name = 'Somebody Else' WHERE intake_id = "
            "(SELECT min(intake_id) FROM intake_record WHERE batch_id = %s)",
            [BATCH],
        )
    repeat(review, "each.check")


def repeat(review: Review, task_id: str) -> None:
    """Clear a single task of the batch, and wait until a new try of it has succeeded."""
    path = path_of(review.task | {"task_id": task_id})
    tries = review.api.call("GET", path)["try_number"]
    body = {
        "dag_run_id": review.task["dag_run_id"],
        "task_ids": [[task_id, review.task["map_index"]]],
        "dry_run": False,
        "only_failed": False,
    }
    review.api.call("POST", f"dags/{DAG}/clearTaskInstances", body)

    def repeated() -> bool:
        task = review.api.call("GET", path)
        return task["state"] == "success" and task["try_number"] > tries

    until(repeated, f"{task_id} is repeated", SECONDS)


def test_answer_to_an_outdated_review_form_is_not_accepted_and_a_new_answer_is_requested(
    running: Running, review: Review
) -> None:
    """Two answers to the outdated form are refused. The answer to the newest form is accepted."""
    customers = running.customers()
    outdated, shown = review.form(), review.detail()
    repeat_check(running, review)
    for _window in range(2):
        created_at = review.detail()["created_at"]
        review.answer(outdated)
        review.asked_again(created_at)
    assert running.customers() == customers
    now = review.form()
    assert now["content"] != outdated["content"]
    sha256 = now["content"].partition(":")[2]
    assert sha256 in review.detail()["body"]
    assert sha256 not in shown["body"]
    review.answer(now)
    until(lambda: running.customers() == customers + RECORDS, "the batch is let in", SECONDS)
    run = DAG, review.task["dag_run_id"]
    with running.services.state.connect() as conn:
        approvals = registry.approvals_of(conn, *run)
        (record,) = [
            step
            for step in steps_of(conn, *run)
            if step.step == "review" and step.part.endswith(BATCH)
        ]
    (approval,) = [approval for approval in approvals if approval.step.endswith(BATCH)]
    assert (approval.sha256, approval.decided_by) == (sha256, REVIEWER)
    (finding,) = [each for each in record.findings if each.code == "intake.other_content"]
    assert finding.message.values["count"] == 2


def test_repeated_review_task_uses_the_stored_decision(running: Running, review: Review) -> None:
    """A worker may die after it committed a decision. The repeated task needs no second answer."""
    customers = running.customers()
    repeat(review, "each.review")
    run = DAG, review.task["dag_run_id"]
    with running.services.state.connect() as conn:
        (record,) = [
            step
            for step in steps_of(conn, *run)
            if step.step == "review" and step.part.endswith(BATCH)
        ]
    assert (record.data["decision"], record.data["decided_by"]) == ("Approve", REVIEWER)
    assert running.customers() == customers
