"""### Incident response: the worst day, led step by step

**Policy clause 6.3:** emergency plan at once, incident team, cause, impact, customers and authorities told in time, review
(PIPL article 57; Network Data Regulations 11; National Incident Reporting Measures).

**What it does.** Press Trigger, say what happened, and be led. The run is the incident: it gets a number, its clocks run from
awareness, and its team is called. What is affected is counted in the mapped databases; people confirm the grade, contain,
report to each authority, write the impact, decide whether people are told. Evidence is secured and held. Nothing is sent to
an authority by itself, and nothing to customers without a decision bound to its words and list. Steps wait under *Browse >
Required Actions* for those who may answer; each shows what is due by when. Silence asks deputies and management too.

**Schedule:** none; trigger it. **Inputs:** `incident.yaml`, `roles.yaml`, `notices.yaml` of the policy pack; connections
`incident_db` (reads what is affected), `state_db`, `evidence_store`, `offsite_store` (recipients' keys), `mail`.

**Writes:** incident, timeline, legal holds and notices to `state_db`; documents and access-log extracts to
`evidence_store`; mail; a sealed bundle with report and timeline (English, Chinese). A drill (`tabletop`) leaves its bundle only.

**Red means** that a clock ran out before its step was done, that the timeline was tampered with, or that the run ended before
the incident did. **What to do:** docs/on-call.md. A failed task: read its log, remove the cause, clear it; nothing is done
twice, and a sealed run does nothing: trigger again. Notes, hand-overs, suspects, a wider scope, a false alarm: workflow
`update_incident`. **Owner:** compliance.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.incident.workflow import RESPOND_TO_INCIDENT
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(RESPOND_TO_INCIDENT, schedule=None, page=__doc__))
def respond_to_incident() -> None:
    """Lead an incident and leave a sealed bundle."""
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
