"""Tests of every incident that was led, for modules that have the fixtures `played` and `state`."""

from __future__ import annotations

from tests.e2e.incidents import checks
from tests.e2e.incidents.led import Played
from tests.e2e.incidents.sample import Sample


def test_what_is_affected_is_what_the_sample_says(played: Played, state: Sample) -> None:
    """People, records, the frozen list, and a legal hold on each of them."""
    checks.scope_is_the_samples(played)
    checks.evidence_is_held(played, state)


def test_what_ran_out_is_red_and_nothing_else_is(played: Played) -> None:
    """Also where everything was entered hours later: what was done in time was in time."""
    checks.clocks_ran_out_as_played(played)


def test_documents_and_report_say_it_in_both_languages(played: Played) -> None:
    """Documents lay sealed before they were asked for; the report leaves no word in English."""
    checks.documents_lay_there_before(played)
    checks.reports_say_it_in_both_languages(played)
    checks.approval_is_bound(played)


def test_the_team_was_called_and_people_were_told_once(played: Played, state: Sample) -> None:
    """Whoever has an address, where it was decided; no word of a letter is about anybody."""
    checks.team_was_called(played)
    checks.letters_went_to_who_has_an_address(played)
    checks.corrective_action_is_a_finding(played, state)
