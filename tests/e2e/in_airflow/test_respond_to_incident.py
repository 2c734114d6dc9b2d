"""An incident in a whole Airflow, over REST: triggered, led, added to, and told of.

Five other types are played against the API alone: tests/e2e/incidents/.
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
from tests.e2e.incidents.as_played import (  # noqa: F401 - collected here
    test_documents_and_report_say_it_in_both_languages,
    test_the_team_was_called_and_people_were_told_once,
    test_what_is_affected_is_what_the_sample_says,
    test_what_ran_out_is_red_and_nothing_else_is,
)
from tests.e2e.incidents.led import DAG, Leading, Played
from tests.e2e.incidents.people import People
from tests.e2e.incidents.sample import Sample
from tests.e2e.incidents.script import (
    OTHERWISE,
    TAKEN_OFF,
    TOLD_OTHERWISE,
    WHY_TAKEN_OFF,
    leaked_credentials,
)
from tests.e2e.running import RUN_TIMEOUT, RUNS, Running, until

pytestmark = pytest.mark.airflow
UPDATE = "update_incident"
TIMEOUT = 600  # seconds
LOOK_EVERY = 2  # seconds; each look asks the API for all questions with their pages


@dataclass(frozen=True)
class Night:
    """What came of it.

    Attributes:
        played: the incident.
        done: its run.
        added: runs of `update_incident`, by what they added.
        said: what Airflow said to who may not answer at all, by how they came.
    """

    played: Played
    done: RunResult
    added: Mapping[str, RunResult]
    said: Mapping[str, int]


@pytest.fixture(scope="module")
def night(running: Running, api: AirflowApi) -> Night:
    """The incident, from the trigger to its seal."""
    sample = Sample(LocalProfile(running.place.home).postgres.conninfo("courier"))
    script = leaked_credentials(sample, running.place.clock.now())
    played = Played(script, running.place.home, sample.team())
    people = People(running.airflow.url, running.airflow.passwords)
    form = {"type": script.name, **script.form}
    played.run_id = people.api(TECHNICIAN).trigger(DAG, form)
    until(lambda: bool(people.questions(DAG)), "the first question waits", 120)
    added: dict[str, RunResult] = {}

    def add(who: str, **what: str) -> None:
        form = {"incident": played.number, **what}
        run_id = people.api(who).trigger(UPDATE, form)
        added[what["action"]] = running.ended(api, UPDATE, run_id)

    lead, relief = [one for one in played.team["command"] if one not in script.suspects][:2]

    def take_off(_played: Played) -> None:
        grader = played.team["compliance"][0]
        add(lead, action="take_off", account=grader, words=WHY_TAKEN_OFF)

    def hand_over_and_tell(_played: Played) -> None:
        add(lead, action="hand_over", account=relief, words="Everything is said")
        add(lead, action="told_otherwise", words=OTHERWISE)

    leading = Leading(
        played,
        running.place,
        people,
        list(script.moves),
        {TAKEN_OFF: take_off, TOLD_OTHERWISE: hand_over_and_tell},
        patience=PATIENCE,
    )
    said = _anybody(people)
    end = time.monotonic() + TIMEOUT
    while leading.left:
        assert time.monotonic() < end, leading.left
        leading.look(
            {
                (one["task_instance"]["task_id"], one["task_instance"]["map_index"]): one
                for one in people.questions(DAG)
                if one["task_instance"]["dag_run_id"] == played.run_id
            }
        )
        time.sleep(LOOK_EVERY)
    done = running.ended(api, DAG, played.run_id, RUN_TIMEOUT + WATCH.at_most.total_seconds())
    played.state, played.bundle = str(done.state), Path(str(done.bundle))
    return Night(played, done, added, said)


def _anybody(people: People) -> dict[str, int]:
    """Without a log-in."""
    (question, *_others) = people.questions(DAG)
    nobody = People(people.url, {})
    nobody._logged_in["nobody"] = AirflowApi(people.url, requests.Session())
    return {"without log-in": nobody.answer("nobody", question, question["options"][0], {})}


@pytest.fixture
def played(night: Night) -> Played:
    return night.played


@pytest.fixture
def state(running: Running) -> Sample:
    """The state database, to be asked in plain SQL."""
    return Sample(LocalProfile(running.place.home).postgres.conninfo("parcelseal_state"))


def test_the_right_people_were_asked_and_nobody_else_was_let_in(night: Night) -> None:
    """Nobody without a log-in, nobody who was not asked, no suspect."""
    assert night.said == {"without log-in": 401}
    checks.asked_are_the_duty_and_nobody_else(night.played)
    checks.nobody_else_was_let_in(night.played)
    checks.pages_say_what_is_due(night.played)


def test_the_timeline_is_as_it_was_played_and_holds(played: Played) -> None:
    """Who pressed Trigger opened it; an outsider works out the digests."""
    checks.timeline_is_as_played(played)
    checks.timeline_holds(played)
    assert checks.entry(played, "opened")["by"] == TECHNICIAN


def test_what_was_added_is_sealed_and_stands_on_the_timeline(night: Night) -> None:
    """In the name of who triggered it, each in a bundle of its own."""
    assert {name: (one.state, one.outcome) for name, one in night.added.items()} == dict.fromkeys(
        ("take_off", "hand_over", "told_otherwise"), ("success", "pass")
    )
    for kind in ("taken_off", "handed_over", "told_otherwise"):
        assert checks.entry(night.played, kind)["by"] in night.played.team["command"]
    for one in night.added.values():
        bundle = Path(str(one.bundle))
        assert (bundle / "timeline.jsonl").exists()
        assert night.played.number in (bundle / "report.zh-CN.html").read_text()


def test_who_was_taken_off_answered_in_vain(played: Played) -> None:
    """Airflow let the answer in, since the question was asked before; it did not count."""
    grader = played.team["compliance"][0]
    refused = next(one for one in played.timeline if one["kind"] == "refused")
    assert (refused["by"], refused["data"]["step"]) == (grader, "grade")
    assert checks.entry(played, "graded")["by"] == played.team["compliance"][1]


def test_all_of_the_evidence_is_verified(running: Running, night: Night) -> None:
    del night
    assert running.verified()


def test_what_is_entered_is_checked_before_anything_begins(api: AirflowApi) -> None:
    """A type that the pack does not have is refused by Airflow's form."""
    refused: Any = api.session.post(
        f"{api.url}/api/v2/{RUNS.format(DAG)}",
        json={"logical_date": None, "conf": {"type": "meteor", "what": "It fell"}},
        timeout=60,
    )
    assert refused.status_code == 400
