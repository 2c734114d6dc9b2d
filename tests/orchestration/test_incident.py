"""The tasks of incidents where nothing can be opened: the run says so in a sealed bundle."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.composition import new_workplace
from include.documents.model import Document
from include.drill_sandbox.schema import sandboxes
from include.evidence import ledger
from include.incident import timeline
from include.incident.evidence import kept
from include.incident.incident_run import IncidentRun, record_of
from include.incident.names import Kind
from include.incident.telling.authority_report import sealed_document
from include.incident.workflow import OPEN, RESPOND_TO_INCIDENT
from include.messages import verbatim
from include.policy import SHIPPED
from include.services.errors import ControlFailed, ServiceError
from tests.drill_sandbox.test_workplace import NIGHT, RUN, Play
from tests.support.contexts import step_record
from tests.support.state_snapshot import differences, snapshot

pytestmark = pytest.mark.airflow

GOOD = {"type": "lost_device", "what": "A scanner was left in a taxi"}


@pytest.fixture
def play(tmp_path: Path, migrated_database: str) -> Play:
    return Play(tmp_path, migrated_database)


def triggered(play: Play, monkeypatch: pytest.MonkeyPatch, **params: Any) -> dict[str, Any]:
    """What the DAG's tasks see of Airflow; the form as it was filled in."""
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from include.orchestration import run, starter, tasks

    dag_run = SimpleNamespace(
        dag_id=RUN[0],
        run_id=RUN[1],
        start_date=NIGHT,
        queued_at=NIGHT,
        data_interval_start=None,
        data_interval_end=None,
        triggering_user_name="E00003",
    )
    task = SimpleNamespace(get_task_states=lambda **_: {}, try_number=1, max_tries=2)
    context = {
        "dag_run": dag_run,
        "ti": task,
        "params": params,
        "outlet_events": OutletEventAccessors(),
    }
    for module in (run, starter, tasks):
        monkeypatch.setattr(module, "get_current_context", lambda: context)
    for module in (run, tasks):
        monkeypatch.setattr(module, "workplace", lambda: play.live)
    return params


def sealed(play: Play) -> dict[str, Any]:
    """What the seal says, and the report of it."""
    from include.orchestration.tasks import seal_workflow

    told = seal_workflow(RESPOND_TO_INCIDENT)
    with play.live.state.connect() as conn:
        row = ledger.find(conn, *RUN)
    assert row is not None
    assert row.bundle == told["bundle"]
    content = play.live.store("evidence_store").get(f"{row.bundle}/result.json")
    found: dict[str, Any] = json.loads(content)
    return found


def context(play: Play) -> IncidentRun:
    """Return the context of the run's steps."""
    from include.orchestration import tasks

    return tasks._required_context(RESPOND_TO_INCIDENT, play.live)


def opened(play: Play) -> str:
    """Open the incident and return its number."""
    return str(step_record(OPEN, context(play)).data["number"])


def refused(params: dict[str, Any], match: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.tasks import run_step

    del params
    with pytest.raises(AirflowFailException, match=match):
        run_step(RESPOND_TO_INCIDENT, OPEN)


def test_a_form_that_cannot_be_used_opens_nothing_and_is_told_in_the_bundle(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fault at once, and the way on; as here of a drill, which leaves its bundle only."""
    before = snapshot(play.state)
    form = {"aware_at": "2027-01-01T00:00", "began_at": "noon", "tabletop": "scanner_lost"}
    params = triggered(play, monkeypatch, **GOOD, **form)
    refused(params, r"began_at is no moment .*; aware_at is yet to come")
    found = sealed(play)
    assert found["outcome"] == "fail"
    assert [one["code"] for one in found["findings"]] == ["open_incident.failed"]
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}
    assert sandboxes(play.live.state) == []


def test_a_scenario_that_the_pack_has_not_any_more_opens_nothing(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another pack was put in place between trigger and run."""
    before = snapshot(play.state)
    refused(triggered(play, monkeypatch, tabletop="flood"), "no scenario flood")
    assert sealed(play)["outcome"] == "fail"
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}


def test_a_pack_without_incident_yaml_leads_none_and_says_so(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody would know whom to ask."""
    pack = tmp_path / "pack"
    shutil.copytree(SHIPPED, pack)
    (pack / "incident.yaml").unlink()
    play.live = new_workplace(tmp_path / "other", pack, play.live.lookup, play.clock)
    refused(triggered(play, monkeypatch, **GOOD), "no incident.yaml")
    found = sealed(play)
    assert found["outcome"] == "fail"
    assert "no incident.yaml" in json.dumps(found["findings"])


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (ControlFailed("The letter lacks its cause.", "Write it."), "AirflowFailException",
         "The letter lacks its cause. Write it."),
        (ServiceError("No connection.", "Wait."), "ServiceError", "No connection. Wait."),
        (KeyError("13800138000"), "ServiceError", "KeyError"),
    ],
)  # fmt: skip
def test_a_step_that_cannot_ask_says_why_and_only_a_service_is_tried_again(
    error: Exception, raised: str, said: str
) -> None:
    """Nobody waits for tries that come to the same; no customer's value gets into the log."""
    from include.orchestration.tasks import explained

    def ask(_part: str) -> None:
        """Ask."""
        raise error

    asks = explained()(ask)
    assert asks.__doc__ == "Ask."
    with pytest.raises(Exception, match=said) as told:
        asks("INC-2026-0001")
    assert type(told.value).__name__ == raised
    assert "13800138000" not in str(told.value)


def test_steps_of_the_first_hours_wait_half_an_hour_and_the_last_ones_a_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the shipped pack: thirty days of silence before a summary are no escalation."""
    monkeypatch.delenv("PARCELSEAL_POLICY", raising=False)
    from include.orchestration.tasks import tasks_of

    tasks = tasks_of(RESPOND_TO_INCIDENT)
    waits = {
        step: getattr(tasks, step)("").response_timeout / timedelta(minutes=30)
        for step in ("contain", "grade", "report", "impact", "decide", "close", "review", "summary")
    }
    assert waits == dict.fromkeys(("contain", "grade", "report", "impact", "decide"), 1) | {
        "close": 8, "review": 48, "summary": 48,
    }  # fmt: skip


def test_a_document_is_sealed_with_the_newest_entry_of_its_timeline(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the bundle that lies there before the incident ends shows what is cut off later."""
    triggered(play, monkeypatch, **GOOD)
    number = opened(play)
    document = Document(title=verbatim("Report"), dated=NIGHT, reference=number)
    run = context(play)
    sealed_document(run, record_of(run, number), document, "first-cac")
    record = record_of(run, number)
    with play.live.state.connect() as conn:
        found = [
            kept.compare_bundles(
                conn, record.incident, known, lambda: play.live.store("evidence_store")
            )
            for known in (record.entries, record.entries[:-1])
        ]
    assert [(len(one.bundles), one.holds) for one in found] == [(1, True), (1, False)]


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("first-cac", Kind.GRADED, {"grade": "major"}),
        ("rest-cac", Kind.REPORTED, {"authority": "cac", "phase": "first"}),
    ],
)
def test_a_document_is_sealed_anew_once_it_would_say_something_else(
    play: Play, monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind, data: dict[str, str]
) -> None:
    """Else the page offers a report of before; until then it is made once."""
    triggered(play, monkeypatch, **GOOD)
    number = opened(play)
    run = context(play)

    def sealed_as(grade: str) -> str:
        document = Document(
            title=verbatim("Report"),
            dated=NIGHT,
            reference=number,
            sender=verbatim(grade),
            sections=(),
        )
        return sealed_document(run, record_of(run, number), document, name)

    first = sealed_as("general")
    assert sealed_as("general") == first
    with run.state.begin() as conn:
        timeline.append(
            conn, record_of(run, number).incident.id, kind, verbatim("Entered"), by="E00007",
            clock=run.clock, data=data,
        )  # fmt: skip
    second = sealed_as("major")
    assert second != first
    store = play.live.store("evidence_store")
    bundles = [one.partition("evidence/")[2] for one in (first, second)]
    said = [store.get(f"{one}/{name}.en.html").decode() for one in bundles]
    assert ["general" in one for one in said] == [True, False]
