"""### Addition to an incident

**Policy clause 6.3:** actions in an incident are recorded when they are taken.

**Function.** The workflow adds an entry to the timeline of an incident, in the name of the person who triggered it. The
entry may be a note, a hand-over of the shift, another grade or a false alarm. It may also remove a suspect from the
team, add a member to the team, or list people who were notified in another way. If the scope is wider than before, the
workflow counts the additional people, secures the evidence, and asks for a decision on the notices to these people. No
person gets a second notice.

**Schedule:** none; trigger it by hand. Only members of the incident's team may trigger it; suspects and removed members
may not. **Inputs:** `incident.yaml` of the policy pack; connections `incident_db`, `state_db`, `evidence_store`,
`offsite_store`, `mail`.

**Writes:** the timeline and notices to `state_db`; mail; a sealed bundle with the timeline (English, Chinese).

**Red means** that the addition was not recorded, or that a step failed. **Action:** read the report in the bundle that
the task `gate` names. If the run has no bundle, read the log of the task `seal`. Correct the form and trigger the
workflow again. A step that waits for an answer asks again after its time limit, or after its task was cleared; it then
asks the people on duty at that time. More: docs/how-to/lead-an-incident.md. **Owner:** compliance.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.incident.workflow import UPDATE_INCIDENT
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(UPDATE_INCIDENT, schedule=None, page=__doc__))
def update_incident() -> None:
    """Add an entry to an incident's timeline and seal the evidence bundle."""
    tasks = tasks_of(UPDATE_INCIDENT)
    preserved = tasks.preserve(tasks.widen(tasks.enter()))
    notified = tasks.notify(preserved)
    tasks.seal_after(tasks.decide(preserved) >> notified >> tasks.send(runs_always=False))


update_incident()
