"""### Training reminders

**Policy clause 6.2:** all staff are trained regularly in law, protection skills and emergency handling; new staff are
trained at onboarding.

**Function.** The workflow computes the due date of each course for each person (`training.yaml`). It considers
onboarding, yearly courses, new versions of courses, leave and waivers. A person gets one reminder on each day of
`ladder` in `training.yaml` (shipped: 30, 7 and 1 days before a course is due), and reminders when the course is
overdue. The second overdue reminder also goes to the supervisor. Heads of departments get a summary once a week. A
person gets at most one mail a day. If the person completes a course before its reminder is sent, the reminder is not
sent.

**Schedule:** daily at 09:30 in the policy pack's timezone; on days off the workflow only measures the training
coverage, and sends no reminder. A repeated run sends no reminder twice. **Inputs:** people, courses and completions
(read from `customer_db` with the login of `training_db`, or uploaded as files with `./parcelseal training upload`);
connections `state_db`, `mail`, `evidence_store`.

**Writes:** notifications and the training coverage of the day to `state_db`; mail; a sealed bundle with the report
(English, Chinese) and the list of overdue courses (with staff numbers) to `evidence_store`.

**Red means** one of these: fewer people are trained than the policy requires; a person without valid training may open
customer records; a course of a person is still overdue after the last reminder; the records of people or courses cannot
be used. **Action:** read the report in the bundle that the task `gate` names. If the run has no bundle, read the log of
the task `seal`. Arrange the missing training, or waive a course with a reason (`./parcelseal training waive`). If the
mail server is down, `send` is retried, and the next run sends the remaining mails (`./parcelseal notices list`). More:
docs/how-to/manage-training-records.md. **Owner:** human resources.
"""

from __future__ import annotations

from airflow.sdk import dag

from include.orchestration.tasks import dag_settings, tasks_of
from include.training.workflow import REMIND_TRAINING


@dag(**dag_settings(REMIND_TRAINING, schedule="30 9 * * *", page=__doc__))
def remind_training() -> None:
    """Remind people of courses that are due and seal the evidence bundle."""
    tasks = tasks_of(REMIND_TRAINING)
    tasks.seal_after(tasks.plan() >> tasks.send())


remind_training()
