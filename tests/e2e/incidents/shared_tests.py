"""Tests of a scripted incident, for modules that have the fixtures `played` and `state`."""

from __future__ import annotations

from tests.e2e.incidents import checks
from tests.e2e.incidents.incident_driver import Played
from tests.e2e.incidents.sample_queries import Sample


def test_incident_scope_and_legal_holds_contain_the_affected_people_of_the_sample_database(
    played: Played, state: Sample
) -> None:
    checks.check_scope(played)
    checks.check_holds(played, state)


def test_findings_contain_exactly_the_expired_time_limits_of_the_incident(played: Played) -> None:
    checks.check_missed_time_limits(played)


def test_incident_documents_and_report_exist_in_english_and_chinese(played: Played) -> None:
    checks.check_sealed_documents(played)
    checks.check_report_texts(played)
    checks.check_approval(played)


def test_each_team_role_gets_one_mail_and_each_affected_customer_gets_one_notice(
    played: Played, state: Sample
) -> None:
    checks.check_team_call(played)
    checks.check_notices(played)
    checks.check_corrective_action(played, state)
