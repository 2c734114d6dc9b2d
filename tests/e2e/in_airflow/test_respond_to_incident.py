"""Tests of an incident in a running Airflow over REST: triggered, led, updated, and notified.

Incidents of five other types are led without a scheduler in tests/e2e/incidents/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from include.cli.answers import PATIENCE
from include.cli.report import RunResult
from include.incident.workflow import WATCH
from include.local.airflow_api import AirflowApi
from include.local.profile import LocalProfile
from tests.e2e.in_airflow.conftest import TECHNICIAN
from tests.e2e.incidents import checks
from tests.e2e.incidents.airflow_people import People
from tests.e2e.incidents.incident_driver import DAG, IncidentDriver, Played
from tests.e2e.incidents.incident_scripts import (
    OTHERWISE,
    TAKEN_OFF,
    TOLD_OTHERWISE,
    WHY_TAKEN_OFF,
    leaked_credentials,
)
from tests.e2e.incidents.sample_queries import Sample
from tests.e2e.incidents.shared_tests import (  # noqa: F401 - collected here
    test_each_team_role_gets_one_mail_and_each_affected_customer_gets_one_notice,
    test_findings_contain_exactly_the_expired_time_limits_of_the_incident,
    test_incident_documents_and_report_exist_in_english_and_chinese,
    test_incident_scope_and_legal_holds_contain_the_affected_people_of_the_sample_database,
)
from tests.e2e.running import RUN_TIMEOUT, RUNS, Running, until

pytestmark = pytest.mark.airflow
UPDATE = "update_incident"
TIMEOUT = 600  # seconds
LOOK_EVERY = 2  # seconds; each poll reads all required actions from the API


@dataclass(frozen=True)
class IncidentRun:
    """A finished incident run.

    Attributes:
        played: the incident.
        run_result: result of the incident's run.
        added: results of the runs of `update_incident`, by the action that they added.
        statuses: HTTP statuses of answers that Airflow refused, by description of the user.
    """

    played: Played
    run_result: RunResult
    added: Mapping[str, RunResult]
    statuses: Mapping[str, int]


@pytest.fixture(scope="module")
def incident_run(running: Running, api: AirflowApi) -> IncidentRun:
    """An incident from its trigger to the seal of its evidence."""
    sample = Sample(LocalProfile(running.services.home).postgres.conninfo("courier"))
    script = leaked_credentials(sample, running.services.clock.now())
    played = Played(script, running.services.home, sample.team())
    people = People(running.airflow.url, running.airflow.passwords)
    form = {"type": script.name, **script.form}
    played.run_id = people.api(TECHNICIAN).trigger(DAG, form)
    until(lambda: bool(people.required_actions(DAG)), "the first request waits", 120)
    added: dict[str, RunResult] = {}

    def add(user: str, **fields: str) -> None:
        form = {"incident": played.number, **fields}
        run_id = people.api(user).trigger(UPDATE, form)
        added[fields["action"]] = running.ended(api, UPDATE, run_id)

    lead, relief = [member for member in played.team["command"] if member not in script.suspects][
        :2
    ]

    def take_off(_played: Played) -> None:
        grader = played.team["compliance"][0]
        add(lead, action="take_off", account=grader, words=WHY_TAKEN_OFF)

    def hand_over_and_tell(_played: Played) -> None:
        add(lead, action="hand_over", account=relief, words="Everything is said")
        add(lead, action="told_otherwise", words=OTHERWISE)

    leading = IncidentDriver(
        played,
        running.services,
        people,
        list(script.moves),
        {TAKEN_OFF: take_off, TOLD_OTHERWISE: hand_over_and_tell},
        patience=PATIENCE,
    )
    statuses = _anybody(people)
    end = time.monotonic() + TIMEOUT
    while leading.left:
        assert time.monotonic() < end, leading.left
        leading.look(
            {
                (
                    action["task_instance"]["task_id"],
                    action["task_instance"]["map_index"],
                ): action
                for action in people.required_actions(DAG)
                if action["task_instance"]["dag_run_id"] == played.run_id
            }
        )
        time.sleep(LOOK_EVERY)
    run_result = running.ended(
        api, DAG, played.run_id, RUN_TIMEOUT + WATCH.max_interval.total_seconds()
    )
    played.state, played.bundle = str(run_result.state), Path(str(run_result.bundle))
    return IncidentRun(played, run_result, added, statuses)


def _anybody(people: People) -> dict[str, int]:
    """Answer a required action without a log-in, and return the HTTP status."""
    (action, *_others) = people.required_actions(DAG)
    nobody = People(people.url, {})
    nobody._logged_in["nobody"] = AirflowApi(people.url, requests.Session())
    return {"without log-in": nobody.answer("nobody", action, action["options"][0], {})}


@pytest.fixture
def played(incident_run: IncidentRun) -> Played:
    return incident_run.played


@pytest.fixture
def state(running: Running) -> Sample:
    """The state database, for queries in plain SQL."""
    return Sample(LocalProfile(running.services.home).postgres.conninfo("parcelseal_state"))


def test_only_the_incident_team_can_answer_required_actions(
    incident_run: IncidentRun,
) -> None:
    """Answers without a log-in, of unassigned users and of suspects are refused."""
    assert incident_run.statuses == {"without log-in": 401}
    checks.check_assigned_people(incident_run.played)
    checks.check_refused_people(incident_run.played)
    checks.check_pages(incident_run.played)


def test_incident_timeline_contains_all_events_and_its_digest_chain_is_valid(
    played: Played,
) -> None:
    """The first entry names the user who triggered the run.

    The test recomputes the digests itself.
    """
    checks.check_timeline_kinds_and_authors(played)
    checks.check_timeline_digests(played)
    assert checks.entry(played, "opened")["by"] == TECHNICIAN


def test_updates_of_an_incident_are_sealed_and_added_to_the_timeline(
    incident_run: IncidentRun,
) -> None:
    """Each run of `update_incident` seals its own bundle and names the user who triggered it."""
    assert {
        name: (update.state, update.outcome) for name, update in incident_run.added.items()
    } == dict.fromkeys(("take_off", "hand_over", "told_otherwise"), ("success", "pass"))
    for kind in ("taken_off", "handed_over", "told_otherwise"):
        assert checks.entry(incident_run.played, kind)["by"] in incident_run.played.team["command"]
    for update in incident_run.added.values():
        bundle = Path(str(update.bundle))
        assert (bundle / "timeline.jsonl").exists()
        assert incident_run.played.number in (bundle / "report.zh-CN.html").read_text()


def test_answer_of_a_member_who_was_removed_from_the_incident_team_is_recorded_as_refused(
    played: Played,
) -> None:
    """Airflow accepts the answer of a member who was assigned earlier, but the step refuses it."""
    grader = played.team["compliance"][0]
    refused = next(entry for entry in played.timeline if entry["kind"] == "refused")
    assert (refused["by"], refused["data"]["step"]) == (grader, "grade")
    assert checks.entry(played, "graded")["by"] == played.team["compliance"][1]


def test_verification_of_all_evidence_bundles_succeeds_after_the_incident(
    running: Running, incident_run: IncidentRun
) -> None:
    del incident_run
    assert running.verified()


def test_triggering_a_run_with_unknown_incident_type_is_rejected_with_status_400(
    api: AirflowApi,
) -> None:
    """An incident type that the policy pack does not contain cannot be triggered."""
    refused: Any = api.session.post(
        f"{api.url}/api/v2/{RUNS.format(DAG)}",
        json={"logical_date": None, "conf": {"type": "meteor", "what": "It fell"}},
        timeout=60,
    )
    assert refused.status_code == 400
