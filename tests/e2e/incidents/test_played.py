"""Five incidents played against Airflow's REST API by the people whom they ask, by their scripts.

The sixth is played in a whole Airflow: tests/e2e/in_airflow/test_respond_to_incident.py.
"""

from __future__ import annotations

import json

import pytest

from include.evidence.verify import verify_all
from tests.e2e.conftest import Cli
from tests.e2e.incidents import checks
from tests.e2e.incidents.as_played import (  # noqa: F401 - collected here
    test_documents_and_report_say_it_in_both_languages,
    test_the_team_was_called_and_people_were_told_once,
    test_what_is_affected_is_what_the_sample_says,
    test_what_ran_out_is_red_and_nothing_else_is,
)
from tests.e2e.incidents.led import Played
from tests.e2e.incidents.sample import Sample
from tests.e2e.incidents.script import IN_PROCESS

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1800)]
NAMES = [one.__name__ for one in IN_PROCESS]


@pytest.fixture(params=NAMES)
def played(request: pytest.FixtureRequest, led: dict[str, Played]) -> Played:
    """Each of them."""
    return led[request.param]


@pytest.fixture
def state(cli: Cli) -> Sample:
    """The state database, to be asked in plain SQL."""
    return Sample(cli.postgres("parcelseal_state"))


def test_the_right_people_were_asked_and_nobody_else_was_let_in(played: Played) -> None:
    """By the staff table, without suspects; whoever was not asked got 403 at every step."""
    checks.asked_are_the_duty_and_nobody_else(played)
    checks.nobody_else_was_let_in(played)
    checks.pages_say_what_is_due(played)


def test_the_timeline_is_as_it_was_played_and_holds(played: Played) -> None:
    """Entry by entry; an outsider works out the digests."""
    checks.timeline_is_as_played(played)
    checks.timeline_holds(played)


def test_all_of_the_evidence_is_verified(cli: Cli, led: dict[str, Played]) -> None:
    """Bundles of incidents and those that were sealed while they went on."""
    del led
    with cli.place.state.connect() as conn:
        found = verify_all(cli.place.store("evidence_store"), conn, cli.place.trusted)
    assert found.verified


def test_pressed_twice_it_is_one_incident(led: dict[str, Played], state: Sample) -> None:
    """The second run asks nobody, tells nobody, and says which incident it is."""
    played = led["insider_export"]
    again = json.loads((played.again / "result.json").read_text())
    codes = {one["code"] for one in again["findings"] if not one["code"].startswith("notices.")}
    assert (codes, again["outcome"]) == ({"incident.duplicate"}, "attention")
    number = again["steps"][0]["data"]["number"]
    assert again["steps"][0]["data"]["duplicate_of"] == played.number
    assert checks.entry(played, "pressed_again")["data"]["number"] == number
    assert again["approvals"] == []
    query = "SELECT count(*) FROM notice WHERE key LIKE %(mine)s"
    assert state.rows(query, {"mine": f"{number}/%"}) == [(0,)]
    assert state.rows(
        "SELECT state FROM incident WHERE number = %(number)s", {"number": number}
    ) == [("duplicate",)]


def test_silence_lets_deputies_and_management_answer(led: dict[str, Played]) -> None:
    """The same step, some seconds later; that nobody answered stands on the timeline."""
    played = led["lost_device"]
    silent, contained = checks.entry(played, "unanswered"), checks.entry(played, "contained")
    assert silent["data"]["step"] == "contain"
    assert silent["place"] < contained["place"]
    assert contained["by"] in played.team["command"]


def test_what_was_entered_before_stands_in_the_form_again(led: dict[str, Played]) -> None:
    """An answer that did not count costs nobody what was typed."""
    page = led["lost_device"].page("decide")
    assert page["params"]["list_looked_at"]["value"] is True
    page = led["misdelivery"].page("grade")
    assert page["params"]["grade"]["value"] == "major"


def test_after_an_outage_what_was_done_in_time_was_done_in_time(led: dict[str, Played]) -> None:
    """When it happened and when that was entered stand side by side."""
    played = led["ransomware"]
    aware = checks.moment(played.script.form["aware_at"])
    for kind, hours in (("contained", 3), ("reported", 3.5)):
        entries = [one for one in played.timeline if one["kind"] == kind]
        took = {
            (checks.moment(one["happened_at"]) - aware).total_seconds() / 3600 for one in entries
        }
        assert hours in took
        recorded = checks.moment(entries[0]["recorded_at"]) - aware
        assert recorded.total_seconds() >= 6 * 3600
    woken = {one["data"]["clock"] for one in played.timeline if one["kind"] == "woken"}
    assert {"graded", "contained", "postal_first"} <= woken


def test_people_were_woken_about_what_was_overdue(led: dict[str, Played]) -> None:
    """The step's people and management, in the same night."""
    played = led["ransomware"]
    woken = {
        mail["To"]
        for mail in checks.mails(played.home)
        if f"Incident {played.number}: OVERDUE" in checks.text_of(mail, "plain")
    }
    assert {"management@courier.example", "compliance@courier.example"} <= woken


def test_a_partner_that_leaked_is_reviewed_again(led: dict[str, Played], state: Sample) -> None:
    """Its review names the incident; until it passes nothing is shared."""
    played = led["partner_breach"]
    query = (
        "SELECT reopened_because FROM partner_review "
        "WHERE partner = %(partner)s AND decided_at IS NULL"
    )
    ((because,),) = state.rows(query, {"partner": played.script.partner})
    assert played.number in because
    assert checks.entry(played, "note")["data"]["partner"] == played.script.partner


def test_a_report_that_is_not_needed_has_reasons(led: dict[str, Played]) -> None:
    """It is no report that was handed in."""
    reported = [one["data"] for one in led["partner_breach"].timeline if one["kind"] == "reported"]
    assert [(one["authority"], one["phase"], one["complete"]) for one in reported] == [
        ("cac", "first", True),
        ("postal", "first", False),
        ("cac", "rest", True),
        ("postal", "rest", False),
    ]


def test_the_command_line_lists_and_verifies_them(cli: Cli, led: dict[str, Played]) -> None:
    """Without Airflow: all of them in the list, and what had run out of each."""
    found = {one["incident"]: one for one in cli.json("incident", "list")["incidents"]}
    for played in led.values():
        one = found[played.number]
        assert (one["type"], one["state"], one["grade"]) == (
            played.script.name,
            "closed",
            played.script.grade,
        )
        assert one["ran_out"] == len(played.script.late)
    played = led["ransomware"]
    verified = cli.json("incident", "verify", played.number)
    assert (verified["verified"], verified["head"]) == (True, played.timeline[-1]["sha256"])
