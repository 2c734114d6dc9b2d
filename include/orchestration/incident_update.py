"""Tasks of `update_incident`: what people add to an incident while it is led."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include.evidence.model import Outcome, StepRecord
from include.incident import assessing, form, report, scopes, updating
from include.incident.incident_run import record_of
from include.incident.names import CLAUSE, STEP_ASSESS
from include.incident.rule_checks import INCIDENT
from include.incident.updating import Action, Update
from include.messages import _
from include.orchestration.incident import context, place, work
from include.orchestration.run import run_key, seal_run, step
from include.orchestration.starter import started_by
from include.reports.conclusion import Conclusion
from include.workplace import Workplace

STEP_ENTER = "enter"


def enter(params: dict[str, Any]) -> dict[str, Any]:
    """Enter an update on the timeline, in the name of who triggered the run."""
    number = str(params.get("incident") or "").strip().upper()

    def act(found: Workplace) -> StepRecord:
        run = context(found)
        entry = updating.enter(
            run, number, _update(params), by=started_by() or "", once="/".join(run_key())
        )
        data = {"number": number, "entry": entry.place, "action": params.get("action")}
        return StepRecord(step=STEP_ENTER, outcome=Outcome.PASS, data=data)

    done = step(STEP_ENTER, "", _("The update"), act, CLAUSE, place)
    return done | {"part": number}


def widen(number: str, params: dict[str, Any]) -> dict[str, Any]:
    """Count what is affected besides.

    Raises:
        AirflowSkipException: the update widens nothing.
    """
    if params.get("action") != Action.WIDEN:
        raise AirflowSkipException("Nothing is widened.")

    def act(_found: Workplace, run: Any) -> StepRecord:
        more = form.selection(params, run.rules, run.zone)
        return assessing.widen(run, number, more, by=started_by() or "")

    return work(STEP_ASSESS, number, _("The count of what is affected besides"), act)


def seal_update() -> dict[str, Any]:
    """Seal the evidence of an update."""

    def conclude(
        found: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        entered = next((one for one in records if one.step == STEP_ENTER), None)
        if found.pack.section(INCIDENT) is None or entered is None or "number" not in entered.data:
            return report.nothing_entered(records)
        run = context(found)
        record = record_of(run, str(entered.data["number"]))
        artifacts[report.TIMELINE] = report.timeline_file(record)
        return report.conclude_update(
            run, record, scopes.found(run, record.incident.id), int(entered.data["entry"]), records
        )

    return seal_run(conclude, place)


def _update(params: dict[str, Any]) -> Update:
    def text(name: str) -> str:
        return str(params.get(name) or "")

    return Update(
        action=Action(text("action") or Action.NOTE),
        words=text("words"),
        account=text("account"),
        duty=text("duty"),
        grade=text("grade"),
        entry=params.get("entry"),
        at=text("at"),
    )
