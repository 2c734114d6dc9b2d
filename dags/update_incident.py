"""### Addition to an incident

**Policy clause 6.3:** what is done in an incident is written down when it is done.

**What it does.** It enters a note, a hand-over of the shift, a person who is taken off (a suspect) or assigned, another grade,
that people were told by other means, or that it was none, on the timeline of an incident, in the name of whoever pressed
Trigger. Where more is affected than was known, it counts that too, secures the evidence, and asks whether the people that
were found are told; whoever was told before is not told again.

**Schedule:** none; trigger it. Only people of the incident's team may; suspects and those who were taken off may not. **Inputs:**
`incident.yaml` of the policy pack; connections `incident_db`, `state_db`, `evidence_store`, `offsite_store`, `mail`.

**Writes:** the timeline and notices to `state_db`; mail; a sealed bundle with the timeline (English, Chinese).

**Red means** that the update was not entered, or that a step failed. **What to do:** read the report in the bundle that the task
`gate` names (no bundle: read the log of the task `seal`), correct the form, trigger it again. A step that waits for an answer
asks the people of now after its time is over, or once its task is cleared. More: docs/incidents.md. **Owner:** compliance.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from include.incident.workflow import UPDATE_INCIDENT
from include.orchestration import incident, incident_form, incident_steps, incident_update
from include.orchestration.human import HumanStep
from include.orchestration.tasks import dag_settings, tasks_of
from include.orchestration.workflow import SEND_ARGS


@dag(
    **dag_settings(
        UPDATE_INCIDENT,
        schedule=None,
        page=__doc__,
        params=incident_form.update(),
    )
)
def update_incident() -> None:
    """Add to an incident and leave a sealed bundle."""
    tasks = tasks_of(UPDATE_INCIDENT)

    @task
    def enter(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Enter the update on the timeline."""
        return incident_update.enter(params or {})

    @task
    def widen(entered: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Count what is affected besides; skipped where nothing is."""
        return incident_update.widen(entered["part"], params or {})

    @task
    def preserve(entered: dict[str, Any]) -> dict[str, Any]:
        """Secure the evidence of it."""
        return incident.preserve(entered["part"])

    @task
    def notify(entered: dict[str, Any]) -> dict[str, Any]:
        """Queue the notices to the people that were found."""
        return incident.notify(entered["part"])

    @task(**SEND_ARGS)
    def send(entered: dict[str, Any]) -> dict[str, Any]:
        """Send them, each once."""
        return incident.send(entered["part"])

    entered = enter()
    widened = widen(entered)
    preserved = preserve(widened)
    decide = HumanStep(
        task_id="decide",
        about=preserved,
        **incident_steps.asking("decide", trigger_rule=TriggerRule.ALL_SUCCESS),
        optional=True,
    )
    notified = notify(preserved)
    tasks.seal_after(decide >> notified >> send(notified), incident_update.seal_update)


update_incident()
