"""### Incident response

**Policy clause 6.3:** the company starts its emergency plan at once, calls the incident team, finds cause and impact,
notifies customers and authorities in time, and reviews the incident (PIPL article 57; Network Data Regulations article
11; National Incident Reporting Measures).

**Function.** Press Trigger and describe the incident; the run then leads you step by step. The incident gets a number,
its deadlines count from awareness, and its team is notified. The run counts the affected people in the mapped databases
and secures the evidence on legal hold. The team confirms the grade, contains the incident, reports to each authority,
describes the impact and decides on notices to customers. Nothing is sent to an authority automatically. Customers get a
notice only after a decision on its exact text and list of recipients. Steps that need an answer wait under *Browse >
Required Actions* with their due date. If no person answers in time, the run also asks deputies and management.

**Schedule:** none; trigger it by hand. **Inputs:** `incident.yaml`, `roles.yaml`, `notices.yaml` of the policy pack;
connections `incident_db` (reads affected records), `state_db`, `evidence_store`, `offsite_store` (public keys of the
recipients), `mail`.

**Writes:** incident, timeline, legal holds and notices to `state_db`; documents and access-log extracts to
`evidence_store`; mail; a sealed bundle with report and timeline (English, Chinese). A drill (`tabletop`) writes only
its bundle.

**Red means** that a deadline passed before its step was completed, that the timeline was changed afterwards, or that
the run ended before the incident was closed. **Action:** docs/how-to/on-call.md. If a task failed, read its log, remove
the cause, and clear the task; completed work is not repeated. A sealed run cannot continue: trigger a new run. To add a
note, hand over a shift, exclude a suspect, widen the scope or report a false alarm, trigger the workflow
`update_incident`. **Owner:** compliance.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.incident.workflow import RESPOND_TO_INCIDENT
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(RESPOND_TO_INCIDENT, schedule=None, page=__doc__))
def respond_to_incident() -> None:
    """Lead the response to an incident and seal the evidence bundle."""
    tasks = tasks_of(RESPOND_TO_INCIDENT)
    opened = tasks.open_incident()
    assessed, grade, contain = tasks.assess(opened), tasks.grade(opened), tasks.contain(opened)
    preserved, notified = tasks.preserve(opened), tasks.notify(opened)
    authorities = tasks.authorities(opened)
    report = tasks.report.expand(about=authorities)
    report_rest = tasks.report_rest.expand(about=authorities)
    impact, decide, close = tasks.impact(opened), tasks.decide(opened), tasks.close(opened)
    review, summary = tasks.review(opened), tasks.summary(opened)
    sent = tasks.send(runs_always=False)
    assessed >> [preserved, grade]
    grade >> authorities
    grade >> impact >> [decide, report_rest]
    preserved >> decide >> notified >> sent
    [contain, report, preserved, decide] >> report_rest
    [sent, report_rest] >> close >> review >> summary
    tasks.seal_after([summary, tasks.watch(opened)])


respond_to_incident()
