"""### Addition to an incident

**Policy clause 6.3:** what is done in an incident is written down when it is done.

**What it does.** It enters one of these on the timeline of an incident, in the name of the person who pressed Trigger: a
note, a hand-over of the shift, a person who is taken off (a suspect) or assigned, another grade, people who were told by
other means, or that the event was not an incident. If more is affected than was known, it counts that too, secures the
evidence, and asks whether to tell the people who were found. People who were told before are not told again.

**Schedule:** none; trigger it. Only people of the incident's team may; suspects and people who were taken off may not.
**Inputs:** `incident.yaml` of the policy pack; connections `incident_db`, `state_db`, `evidence_store`, `offsite_store`, `mail`.

**Writes:** the timeline and notices to `state_db`; mail; a sealed bundle with the timeline (English, Chinese).

**Red means** that the update was not entered, or that a step failed. **What to do:** read the report in the bundle that
the task `gate` names (no bundle: read the log of the task `seal`), correct the form, and trigger it again. A step that
waits for an answer asks again after its time limit, or once its task is cleared; it then asks the people who may answer
at that time. More: docs/incidents.md. **Owner:** compliance.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.incident.workflow import UPDATE_INCIDENT
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(UPDATE_INCIDENT, schedule=None, page=__doc__))
def update_incident() -> None:
    """Add to an incident and leave a sealed bundle."""
    tasks = tasks_of(UPDATE_INCIDENT)
    preserved = tasks.preserve(tasks.widen(tasks.enter()))
    notified = tasks.notify(preserved)
    tasks.seal_after(tasks.decide(preserved) >> notified >> tasks.send(runs_always=False))


update_incident()
