"""### Training reminders

**Policy clause 6.2:** everyone is trained regularly in law, protection skills and emergency handling; new staff at onboarding.

**What it does.** It works out in SQL who has to take which course by when (`training.yaml`): onboarding after joining,
yearly courses, new versions, leave, waivers. It reminds people 30, 7 and 1 days before a course is due and when it is
overdue, once each; from the second overdue reminder on also their supervisor; heads of departments once a week. One mail
a day holds all reminders of a person. Just before each mail is sent, reminders of courses that were taken meanwhile are
withdrawn.

**Schedule:** daily at 09:30 in the policy pack's timezone; on days off it measures and sends no reminder. Starting it again, by
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

from airflow.sdk import dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.training.workflow import REMIND_TRAINING


@dag(**dag_settings(REMIND_TRAINING, schedule="30 9 * * *", page=__doc__))
def remind_training() -> None:
    """Remind people of courses and leave a sealed bundle."""
    tasks = tasks_of(REMIND_TRAINING)
    tasks.seal_after(tasks.plan() >> tasks.send())


remind_training()
