"""### Training reminders

**Policy clause 6.2:** everyone is trained regularly in law, protection skills and emergency handling; new staff at onboarding.

**What it does.** It works out in SQL who has to take which course by when (`training.yaml`): onboarding after joining,
yearly courses, new versions, leave, waivers. It tells people 30, 7 and 1 days before a course is due and when it is
overdue, each rung once; from the second overdue rung their supervisor too; heads of departments once a week. Everything
for one person goes into one mail a day. Whoever took the course hears no more of it: that is looked at again just before
each mail is sent.

**Schedule:** daily at 09:30 in the policy pack's timezone; on days off it measures and tells nobody. Starting it again, by
hand or for a past day, sends nothing twice. **Inputs:** people, courses and completions (`customer_db`, read with the rights
of `training_db`; or uploaded files, `./parcelseal training upload`), connections `state_db`, `mail`, `evidence_store`.

**Writes:** the outbox and the coverage of the day to `state_db`; mail; a sealed bundle with the report (English, Chinese)
and the list of overdue courses (staff numbers) to `evidence_store`.

**Red means** that fewer people are trained than the policy asks, that somebody may open customer records without valid
training, that somebody is overdue beyond the last rung of the ladder, or that the records cannot be used. **What to do:**
read the report in the bundle that the task `gate` names (no bundle: read the log of the task `seal`); have people trained,
or waive a course with a reason (`./parcelseal training waive`). Mail server down: `send` is repeated, and what could not be
sent goes with the next run (`./parcelseal notices list`). More: docs/training.md. **Owner:** human resources.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task

from include.orchestration import notices, training
from include.orchestration.run import require_held
from include.orchestration.workflow import DEFAULT_ARGS, SEAL_ARGS, SEND_ARGS, Tag, cron


@dag(
    dag_id="remind_training",
    dag_display_name="Training reminders",
    description="Tell people once which courses are due, stop on completion, report coverage, seal.",
    doc_md=__doc__,
    schedule=cron("30 9 * * *"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS | {"owner": "human_resources"},
    tags=[Tag.TRAINING, Tag.CLAUSE_6_2, Tag.DAILY],
)
def remind_training() -> None:
    """Remind people of courses and leave a sealed bundle."""

    @task
    def plan() -> dict[str, Any]:
        """Work out who is told what today; queue it once."""
        return training.plan()

    @task(trigger_rule=TriggerRule.ALL_DONE, **SEND_ARGS)
    def send() -> dict[str, Any]:
        """Send what is queued and still wanted, one message a day and person."""
        return notices.send(training.CLAUSE)

    @task(**SEAL_ARGS)
    def seal() -> dict[str, Any]:
        """Write the sealed bundle, whatever happened before."""
        return training.seal_training()

    @task(retries=0)
    def gate(sealed: dict[str, Any]) -> None:
        """Fail the run when the control did not hold."""
        require_held(sealed)

    sealed = seal()
    plan() >> send() >> sealed
    gate(sealed)


remind_training()
