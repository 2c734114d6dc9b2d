"""Tests of five scripted incidents; people answer over Airflow's REST API.

The sixth runs in a complete Airflow: tests/e2e/in_airflow/test_respond_to_incident.py.
"""

from __future__ import annotations

import json

import pytest

from include.evidence.verify import verify_all
from tests.e2e.conftest import Cli
from tests.e2e.incidents import checks
from tests.e2e.incidents.incident_driver import Played
from tests.e2e.incidents.incident_scripts import IN_PROCESS
from tests.e2e.incidents.sample_queries import Sample
from tests.e2e.incidents.shared_tests import (  # noqa: F401 - collected here
    test_each_team_role_gets_one_mail_and_each_affected_customer_gets_one_notice,
    test_findings_contain_exactly_the_expired_time_limits_of_the_incident,
    test_incident_documents_and_report_exist_in_english_and_chinese,
    test_incident_scope_and_legal_holds_contain_the_affected_people_of_the_sample_database,
)

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1800)]
NAMES = [incident.__name__ for incident in IN_PROCESS]


@pytest.fixture(params=NAMES)
def played(request: pytest.FixtureRequest, led: dict[str, Played]) -> Played:
    """A scripted incident. Tests run with each of the five."""
    return led[request.param]


@pytest.fixture
def state(cli: Cli) -> Sample:
    """The state database, for queries in plain SQL."""
    return Sample(cli.postgres("parcelseal_state"))


def test_human_step_of_an_incident_accepts_answers_only_from_people_with_the_required_duty(
    played: Played,
) -> None:
    checks.check_assigned_people(played)
    checks.check_refused_people(played)
    checks.check_pages(played)


def test_incident_timeline_contains_the_scripted_answers_and_its_digest_chain_is_valid(
    played: Played,
) -> None:
    checks.check_timeline_kinds_and_authors(played)
    checks.check_timeline_digests(played)


def test_verification_of_all_sealed_evidence_bundles_succeeds(
    cli: Cli, led: dict[str, Played]
) -> None:
    del led
    with cli.services.state.connect() as conn:
        verification = verify_all(cli.services.store("evidence_store"), conn, cli.services.trusted)
    assert verification.verified


def test_incident_triggered_twice_is_registered_as_duplicate(
    led: dict[str, Played], state: Sample
) -> None:
    played = led["insider_export"]
    again = json.loads((played.again / "result.json").read_text())
    codes = {
        finding["code"]
        for finding in again["findings"]
        if not finding["code"].startswith("notices.")
    }
    assert (codes, again["outcome"]) == ({"incident.duplicate"}, "attention")
    assert (again["controls"], again["could_not_run"]) == ([], True)
    number = again["steps"][0]["data"]["number"]
    assert again["steps"][0]["data"]["duplicate_of"] == played.number
    assert checks.entry(played, "pressed_again")["data"]["number"] == number
    assert again["approvals"] == []
    query = "SELECT count(*) FROM notification WHERE key LIKE %(mine)s"
    assert state.rows(query, {"mine": f"{number}/%"}) == [(0,)]
    assert state.rows(
        "SELECT state FROM incident WHERE number = %(number)s", {"number": number}
    ) == [("duplicate",)]


def test_incident_lead_can_answer_a_step_that_the_person_on_duty_did_not_answer(
    led: dict[str, Played],
) -> None:
    played = led["lost_device"]
    silent, contained = checks.entry(played, "unanswered"), checks.entry(played, "contained")
    assert silent["data"]["step"] == "contain"
    assert silent["place"] < contained["place"]
    assert contained["by"] in played.team["command"]


def test_form_after_a_refused_answer_keeps_the_entered_values(led: dict[str, Played]) -> None:
    page = led["lost_device"].page("decide")
    assert page["params"]["list_looked_at"]["value"] is True
    page = led["misdelivery"].page("grade")
    assert page["params"]["grade"]["value"] == "major"


def test_incident_timeline_contains_the_entered_event_time_if_it_was_recorded_hours_later(
    led: dict[str, Played],
) -> None:
    played = led["ransomware"]
    aware = checks.moment(played.script.form["aware_at"])
    for kind, hours in (("contained", 3), ("reported", 3.5)):
        entries = [entry for entry in played.timeline if entry["kind"] == kind]
        hours_taken = {
            (checks.moment(entry["happened_at"]) - aware).total_seconds() / 3600
            for entry in entries
        }
        assert hours in hours_taken
        recorded = checks.moment(entries[0]["recorded_at"]) - aware
        assert recorded.total_seconds() >= 6 * 3600
    woken = {entry["data"]["clock"] for entry in played.timeline if entry["kind"] == "woken"}
    assert {"graded", "contained", "postal_first"} <= woken


def test_expired_time_limit_notifies_the_person_on_duty_and_management(
    led: dict[str, Played],
) -> None:
    played = led["ransomware"]
    recipients = {
        mail["To"]
        for mail in checks.mails(played.home)
        if f"Incident {played.number}: a deadline was MISSED" in checks.text_of(mail, "plain")
    }
    assert {"management@courier.example", "compliance@courier.example"} <= recipients


def test_partner_review_is_reopened_after_a_data_breach_at_the_partner(
    led: dict[str, Played], state: Sample
) -> None:
    played = led["partner_breach"]
    query = (
        "SELECT reopened_because FROM partner_review "
        "WHERE partner = %(partner)s AND decided_at IS NULL"
    )
    ((because,),) = state.rows(query, {"partner": played.script.partner})
    assert played.number in because
    assert checks.entry(played, "note")["data"]["partner"] == played.script.partner


def test_report_that_an_authority_does_not_require_is_recorded_as_not_handed_in(
    led: dict[str, Played],
) -> None:
    reported = [
        report["data"] for report in led["partner_breach"].timeline if report["kind"] == "reported"
    ]
    assert [(report["authority"], report["phase"], report["complete"]) for report in reported] == [
        ("cac", "first", True),
        ("postal", "first", False),
        ("cac", "rest", True),
        ("postal", "rest", False),
    ]


def test_command_incident_list_returns_closed_incidents_and_incident_verify_accepts_timeline(
    cli: Cli, led: dict[str, Played]
) -> None:
    listed = {
        incident["incident"]: incident for incident in cli.json("incident", "list")["incidents"]
    }
    for played in led.values():
        row = listed[played.number]
        assert (row["type"], row["state"], row["grade"]) == (
            played.script.name,
            "closed",
            played.script.grade,
        )
        assert row["ran_out"] == len(played.script.late)
    played = led["ransomware"]
    verified = cli.json("incident", "verify", played.number)
    assert (verified["verified"], verified["head"]) == (True, played.timeline[-1]["sha256"])
