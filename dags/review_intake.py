"""### Review before storing

**Policy clause 5.2:** the information-management department reviews what was collected; only then it is formally stored,
with its class. Clause 5.1: what is collected is validated.

**What it does.** It finds the batches of the incoming tables that nobody has decided on, oldest first; hashes each batch
and holds every rule against every record; asks an information-management reviewer who entered none of the records; and
acts on the decision in one transaction. Approved: records that break no rule become formal ones, with class, reviewer and
time; the others are set aside by key. Rejected: none becomes formal. Changed since the decision: nothing happens.

**Schedule:** daily at 09:00 in the policy pack's timezone. **Inputs:** `intake.yaml` and the data map of the policy pack;
connections `customer_db` (reads), `intake_db` (lets records in), `state_db`, `evidence_store`.

**Writes:** formal records and the review columns of the incoming table; approvals to `state_db`; a sealed bundle with the
report (English, Chinese) to `evidence_store`. Reviewers answer under *Browse > Required Actions*; the page has a masked
sample and says who may answer. A run that waits for them, up to 20 hours by default (`response`), is no fault.

**Red means** that records wait unreviewed past their deadline, that somebody answered who may not, that a batch changed
after its decision, or that a rule could not be checked. **What to do:** read the report in the bundle that the task `gate`
names (no bundle: read the log of the task `seal`); have the waiting batches reviewed; run this workflow again: what was
decided is not done twice. More: docs/intake.md. **Owner:** information management.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.intake.workflow import REVIEW_INTAKE
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(REVIEW_INTAKE, schedule="0 9 * * *", page=__doc__))
def review_intake() -> None:
    """Have every waiting batch reviewed and leave a sealed bundle."""
    tasks = tasks_of(REVIEW_INTAKE)

    @task_group
    def each(batch: str) -> None:
        """One batch; what happens to it does not touch the others."""
        checked = tasks.check(batch)
        # `settle` reads the decision itself: somebody may mark `review` as done without an answer.
        tasks.review(checked) >> tasks.settle(checked)

    tasks.seal_after(each.expand(batch=tasks.batches()) >> tasks.verify())


review_intake()
