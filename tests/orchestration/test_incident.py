"""Tasks of an incident that cannot be opened. The sealed bundle contains the reason."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.composition import build_services
from include.documents.model import Document
from include.drill_sandbox.schema import sandboxes
from include.evidence import ledger
from include.evidence.model import Outcome
from include.incident import report, timeline
from include.incident.communication.authority_report import sealed_document
from include.incident.evidence import evidence_check
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRun, record_of
from include.incident.workflow import OPEN, RESPOND_TO_INCIDENT
from include.messages import verbatim
from include.policy import SHIPPED
from include.services.errors import ControlFailed, ServiceError
from include.workflow.run_records import RunRecords
from tests.drill_sandbox.test_sandboxed_services import NIGHT, RUN, Play
from tests.support.contexts import step_record
from tests.support.state_snapshot import differences, snapshot

pytestmark = pytest.mark.airflow

VALID = {"type": "lost_device", "what": "A scanner was left in a taxi"}


@pytest.fixture
def play(tmp_path: Path, migrated_database: str) -> Play:
    return Play(tmp_path, migrated_database)


def replace_context(play: Play, monkeypatch: pytest.MonkeyPatch, **params: Any) -> dict[str, Any]:
    """Replace Airflow's context of the running task.

    Args:
        play: the played incident.
        monkeypatch: monkeypatch fixture of the test.
        params: parameters of the run: the fields of the filled form.
    """
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from include.orchestration import run, run_trigger, tasks

    dag_run = SimpleNamespace(
        dag_id=RUN[0],
        run_id=RUN[1],
        start_date=NIGHT,
        queued_at=NIGHT,
        data_interval_start=None,
        data_interval_end=None,
        triggering_user_name="E00003",
        conf={},
    )
    task = SimpleNamespace(get_task_states=lambda **_: {}, try_number=1, max_tries=2)
    context = {
        "dag_run": dag_run,
        "ti": task,
        "params": params,
        "outlet_events": OutletEventAccessors(),
    }
    for module in (run, run_trigger, tasks):
        monkeypatch.setattr(module, "get_current_context", lambda: context)
    for module in (run, tasks):
        monkeypatch.setattr(module, "task_services", lambda: play.live)
    return params


def sealed(play: Play) -> dict[str, Any]:
    """Seal the run; return the result.json of its bundle."""
    from include.orchestration.tasks import seal_workflow

    summary = seal_workflow(RESPOND_TO_INCIDENT)
    with play.live.state.connect() as conn:
        row = ledger.find(conn, *RUN)
    assert row is not None
    assert row.bundle == summary["bundle"]
    content = play.live.store("evidence_store").get(f"{row.bundle}/result.json")
    found: dict[str, Any] = json.loads(content)
    return found


def context(play: Play) -> IncidentRun:
    """Return the run context of the incident workflow's steps."""
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


def test_invalid_incident_form_opens_no_incident_and_evidence_bundle_has_outcome_fail(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error lists every fault. The run is a drill, which leaves nothing but its bundle."""
    before = snapshot(play.state)
    form = {"aware_at": "2027-01-01T00:00", "began_at": "noon", "tabletop": "scanner_lost"}
    params = replace_context(play, monkeypatch, **VALID, **form)
    refused(params, r"began_at is not a valid time .*; aware_at is in the future")
    bundle = sealed(play)
    assert (bundle["outcome"], bundle["could_not_run"]) == ("fail", True)
    assert [finding["code"] for finding in bundle["findings"]] == ["open_incident.failed"]
    changed = differences(before, snapshot(play.state))
    changed.pop("public.policy_control", None)  # the first seal records the controls of the pack
    assert changed == {"public.evidence_ledger": 1}
    assert sandboxes(play.live.state) == []


def test_tabletop_drill_whose_scenario_was_removed_opens_no_incident(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy pack changed between the trigger and the start of the run."""
    before = snapshot(play.state)
    refused(
        replace_context(play, monkeypatch, tabletop="flood"), "the scenario flood does not exist"
    )
    assert sealed(play)["outcome"] == "fail"
    changed = differences(before, snapshot(play.state))
    changed.pop("public.policy_control", None)  # the first seal records the controls of the pack
    assert changed == {"public.evidence_ledger": 1}


def test_second_submission_of_the_same_form_is_evidence_for_no_control(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the first incident does the work and measures the controls."""
    replace_context(play, monkeypatch, **VALID)
    first = opened(play)
    from include.orchestration import run

    run.get_current_context()["dag_run"].run_id = "manual__2"
    record = step_record(OPEN, context(play))
    assert record.data["duplicate_of"] == first
    conclusion = report.conclude(context(play), RunRecords([record]))
    assert (conclusion.could_not_run, conclusion.outcome) == (True, Outcome.ATTENTION)


def test_no_incident_is_opened_if_policy_pack_has_no_incident_yaml(
    play: Play, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(SHIPPED, pack)
    (pack / "incident.yaml").unlink()
    play.live = build_services(tmp_path / "other", pack, play.live.lookup, play.clock)
    refused(replace_context(play, monkeypatch, **VALID), "no incident.yaml")
    bundle = sealed(play)
    assert (bundle["outcome"], bundle["could_not_run"]) == ("fail", True)
    assert "no incident.yaml" in json.dumps(bundle["findings"])


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ControlFailed("The letter lacks its cause.", "Write it."), "AirflowFailException",
         "The letter lacks its cause. Write it."),
        (ServiceError("No connection.", "Wait."), "ServiceError", "No connection. Wait."),
        (KeyError("13800138000"), "ServiceError", "KeyError"),
    ],
)  # fmt: skip
def test_error_while_building_a_form_is_retried_except_the_error_control_failed(
    error: Exception, raised: str, message: str
) -> None:
    """No customer's value is written to the log."""
    from include.orchestration.tasks import redacted_errors

    def ask(_part: str) -> None:
        """Ask."""
        raise error

    asks = redacted_errors()(ask)
    assert asks.__doc__ == "Ask."
    with pytest.raises(Exception, match=message) as told:
        asks("INC-2026-0001")
    assert type(told.value).__name__ == raised
    assert "13800138000" not in str(told.value)


def test_urgent_incident_steps_wait_half_an_hour_for_an_answer_and_final_steps_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shipped policy pack sets these times."""
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


def test_deletion_of_newest_timeline_entry_is_detected_by_comparison_with_interim_bundle(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the bundle shows if entries at the end of the timeline are deleted later."""
    replace_context(play, monkeypatch, **VALID)
    number = opened(play)
    document = Document(title=verbatim("Report"), dated=NIGHT, reference=number)
    run = context(play)
    sealed_document(run, record_of(run, number), document, "first-cac")
    record = record_of(run, number)
    with play.live.state.connect() as conn:
        checks = [
            evidence_check.compare_bundles(
                conn, record.incident, entries, lambda: play.live.store("evidence_store")
            )
            for entries in (record.entries, record.entries[:-1])
        ]
    assert [(len(check.bundles), check.is_intact) for check in checks] == [(1, True), (1, False)]


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("first-cac", Kind.GRADED, {"grade": "major"}),
        ("rest-cac", Kind.REPORTED, {"authority": "cac", "phase": "first"}),
    ],
)
def test_incident_document_is_sealed_again_only_if_its_content_changed(
    play: Play, monkeypatch: pytest.MonkeyPatch, name: str, kind: Kind, data: dict[str, str]
) -> None:
    replace_context(play, monkeypatch, **VALID)
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
    bundles = [bundle_path.partition("evidence/")[2] for bundle_path in (first, second)]
    texts = [store.get(f"{bundle}/{name}.en.html").decode() for bundle in bundles]
    assert ["general" in text for text in texts] == [True, False]
