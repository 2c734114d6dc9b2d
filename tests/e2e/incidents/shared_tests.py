"""Tests of a scripted incident, for modules that have the fixtures `played` and `state`."""

from __future__ import annotations

from tests.e2e.incidents import checks
from tests.e2e.incidents.incident_driver import Played
from tests.e2e.incidents.sample_queries import Sample


def test_scope_and_legal_holds_match_the_sample_database(played: Played, state: Sample) -> None:
    checks.check_scope(played)
    checks.check_holds(played, state)


def test_findings_of_the_incident_report_only_expired_time_limits(played: Played) -> None:
    checks.check_missed_time_limits(played)


def test_documents_and_report_are_in_both_languages(played: Played) -> None:
    checks.check_sealed_documents(played)
    checks.check_report_texts(played)
    checks.check_approval(played)


def test_team_is_called_and_customers_get_notices_exactly_once(
    played: Played, state: Sample
) -> None:
    checks.check_team_call(played)
    checks.check_notices(played)
    checks.check_corrective_action(played, state)
