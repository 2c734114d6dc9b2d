"""Events of the Airflow assets that a run produced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.messages import verbatim
from include.reports.conclusion import Conclusion
from include.services.errors import ControlFailed
from include.workflow.assets import Asset, AssetEvent, SealedRecords
from include.workflow.declaration import AccessGroup, AnyWorkflow, Cadence, Workflow
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords
from tests.drill_sandbox.test_sandboxed_services import RUN
from tests.orchestration.test_sealed_runs import Run, conclude, run

pytestmark = pytest.mark.airflow
__all__ = ["run"]

BUNDLE = f"x-parcelseal://sealed-bundle/{RUN[0]}"


def checks(sealed: SealedRecords) -> Iterator[AssetEvent]:
    """Yield an event for the step `check`, if the step left a record."""
    if (record := sealed.records.find("check")) is not None:
        yield AssetEvent("all", record.outcome, {"report": sealed.digests["report.en.html"]})


def conclusion(context: RunContext[None], records: RunRecords) -> Conclusion:
    return conclude(context.services, records.records, {})


def workflow_with(events: Callable[[SealedRecords], Iterator[AssetEvent]]) -> AnyWorkflow:
    """Return a workflow that produces one kind of asset."""
    return Workflow[None](
        id=RUN[0],
        title=verbatim("A check"),
        summary="",
        topic="quality",
        clauses=("4.1",),
        cadence=Cadence.DAILY,
        owner="it",
        access=AccessGroup.RECORDS,
        conclude=conclusion,
        produces=(Asset("check", events),),
    )


def events_of_seal(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    events: Callable[[SealedRecords], Iterator[AssetEvent]] = checks,
) -> dict[str, dict[str, Any]]:
    """Seal a run as the task `seal` does; return the events that Airflow would store, by URI."""
    from airflow.sdk.execution_time.context import OutletEventAccessors
    from airflow.sdk.execution_time.task_runner import _serialize_outlet_events

    from include.orchestration import tasks

    accessors = OutletEventAccessors()
    context = run.context() | {"outlet_events": accessors}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    tasks.seal_workflow(workflow_with(events))
    registered: Sequence[Any] = list(_serialize_outlet_events(accessors))
    return {event["dest_asset_key"]["uri"]: event["extra"] for event in registered}


def test_seal_task_raises_the_same_asset_events_again_after_it_was_cleared(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events come from the bundle, not from step records that were changed later."""
    run.step(Outcome.FAIL)
    first = events_of_seal(run, monkeypatch)
    assert set(first) == {BUNDLE, "x-parcelseal://check/all"}
    assert {(extra["outcome"], extra["run_outcome"]) for extra in first.values()} == {
        ("fail", "fail")
    }
    assert not any(extra["is_drill"] for extra in first.values())
    assert first[BUNDLE]["findings"] == 1
    with run.live.state.begin() as conn:
        conn.exec_driver_sql('UPDATE run_step SET record = record || \'{"outcome": "pass"}\'')
    run.try_number = 2
    assert events_of_seal(run, monkeypatch) == first


def test_no_asset_event_is_raised_for_a_step_without_a_record(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle always has an event."""
    run.step(Outcome.FAIL, "another")
    assert set(events_of_seal(run, monkeypatch)) == {BUNDLE}


def test_seal_task_raises_control_failed_error_if_a_file_of_the_sealed_evidence_bundle_was_changed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.step(Outcome.FAIL)
    events = events_of_seal(run, monkeypatch)
    result = run.store / events[BUNDLE]["bundle"] / "result.json"
    result.write_text(result.read_text().replace('"fail"', '"pass"'))
    with pytest.raises(ControlFailed, match=r"result\.json"):
        events_of_seal(run, monkeypatch)


def test_run_is_sealed_even_if_the_creation_of_its_asset_events_raises_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(sealed: SealedRecords) -> Iterator[AssetEvent]:
        raise ValueError(f"{sealed.records.records} cannot be read")

    run.step(Outcome.PASS)
    assert set(events_of_seal(run, monkeypatch, unreadable)) == {BUNDLE}
    assert "no further events" in caplog.text


def test_at_most_500_asset_events_are_raised_for_a_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from include.orchestration.assets import MOST_EVENTS

    def many(_sealed: SealedRecords) -> Iterator[AssetEvent]:
        for number in range(MOST_EVENTS):
            yield AssetEvent(str(number), Outcome.PASS, {})

    run.step(Outcome.PASS)
    events = events_of_seal(run, monkeypatch, many)
    assert BUNDLE in events
    assert len(events) == MOST_EVENTS
    assert "Only 500 assets" in caplog.text


def test_outcome_of_returns_the_worst_outcome_of_the_steps_that_have_a_record() -> None:
    records = [StepRecord(step="a", part="x", outcome=Outcome.PASS)]
    records += [StepRecord(step="b", part="x", outcome=Outcome.ATTENTION)]
    sealed = SealedRecords(RunRecords(records), {})
    assert sealed.outcome_of(("a", "x"), ("b", "x"), ("c", "x")) is Outcome.ATTENTION
    assert sealed.outcome_of(("a", "y")) is Outcome.FAIL
