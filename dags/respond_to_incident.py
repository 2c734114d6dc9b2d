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

from typing import Any

from airflow.sdk import dag, task

from include.incident.workflow import RESPOND_TO_INCIDENT
from include.orchestration import incident, incident_form, incident_steps
from include.orchestration.human import HumanStep
from include.orchestration.tasks import dag_settings, tasks_of
from include.orchestration.workflow import SEND_ARGS


@dag(
    **dag_settings(
        RESPOND_TO_INCIDENT,
        schedule=None,
        page=__doc__,
        params=incident_form.trigger(),
    )
)
def respond_to_incident() -> None:
    """Lead an incident and leave a sealed bundle."""
    tasks = tasks_of(RESPOND_TO_INCIDENT)

    @task
    def open_incident(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Register the incident, start its clocks, call its team."""
        return incident.open_incident(params or {})

    @task(**incident.WATCH_ARGS)
    def watch(opened: dict[str, Any]) -> int:
        """Wake people before and after clocks run out, until nothing is left to watch."""
        return incident.watch(opened["part"])

    @task
    def assess(opened: dict[str, Any]) -> dict[str, Any]:
        """Count what is affected, and propose a grade."""
        return incident.assess(opened["part"])

    @task
    def preserve(opened: dict[str, Any]) -> dict[str, Any]:
        """Secure the evidence: list of people, access log, legal holds."""
        return incident.preserve(opened["part"])

    @task
    def authorities(opened: dict[str, Any]) -> list[dict[str, Any]]:
        """Name the authorities that it is reported to."""
        return incident.authorities(opened["part"])

    @task
    def notify(opened: dict[str, Any]) -> dict[str, Any]:
        """Queue the notices that were decided on."""
        return incident.notify(opened["part"])

    @task(**SEND_ARGS)
    def send(opened: dict[str, Any]) -> dict[str, Any]:
        """Send them, each once."""
        return incident.send(opened["part"])

    def asks(name: str, about: Any) -> HumanStep:
        return HumanStep(task_id=name, about=about, **incident_steps.asking(name))

    def asks_each(name: str, about: Any) -> Any:
        return HumanStep.partial(task_id=name, **incident_steps.asking(name)).expand(about=about)

    opened = open_incident()
    assessed, grade, contain = assess(opened), asks("grade", opened), asks("contain", opened)
    preserved, named, notified = preserve(opened), authorities(opened), notify(opened)
    report, report_rest = asks_each("report", named), asks_each("report_rest", named)
    impact, decide, close = asks("impact", opened), asks("decide", opened), asks("close", opened)
    assessed >> [preserved, grade]
    grade >> named
    grade >> impact >> [decide, report_rest]
    preserved >> decide >> notified >> (sent := send(opened))
    [contain, report, preserved, decide] >> report_rest
    [sent, report_rest] >> close >> asks("review", opened) >> (summary := asks("summary", opened))
    tasks.seal_after([summary, watch(opened)], incident.seal_incident)


respond_to_incident()
