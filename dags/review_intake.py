"""### Review before storing

**Policy clause 5.2:** the information-management department reviews collected records; only then are they formally
stored, with their class. Clause 5.1: collected records are validated.

**Function.** The workflow finds the batches of the incoming tables that have no decision yet, oldest first. It computes
a hash of each batch, checks every record against the expectations for incoming records (`quality/*.yaml`), and asks a
reviewer of information management. The reviewer must not have entered any of the records. The workflow executes the
decision in one transaction. If the batch is approved, records that break no required expectation become formal records,
with their class (such as `sensitive`), the reviewer and the time of the decision; the keys of the other records are
added to the quarantine register. If the batch is rejected, or was changed after the decision, no record becomes formal.

**Schedule:** daily at 09:00 in the policy pack's timezone. **Inputs:** `intake.yaml` and the data map of the policy
pack; connections `customer_db` (reads), `intake_db` (moves records into the formal tables), `state_db`,
`evidence_store`.

**Writes:** formal records and the review columns of the incoming table; approvals to `state_db`; a sealed bundle with
the report (English, Chinese) to `evidence_store`. Reviewers answer under *Browse > Required Actions*; the page shows a
masked sample and the assigned people. It is normal that a run waits for them, by default up to 20 hours
(`response` in `intake.yaml`).

**Red means** one of these: records wait unreviewed past their deadline; a person without the right to decide answered;
a batch changed after its decision; an expectation could not be checked. **Action:** read the report in the bundle that
the task `gate` names. If the run has no bundle, read the log of the task `seal`. Ask for a review of the waiting
batches, then run this workflow again. No decision is executed twice. More: docs/how-to/review-a-batch.md. **Owner:**
information management.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.intake.workflow import REVIEW_INTAKE
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(REVIEW_INTAKE, schedule="0 9 * * *", page=__doc__))
def review_intake() -> None:
    """Request a review of every waiting batch and seal the evidence bundle."""
    tasks = tasks_of(REVIEW_INTAKE)

    @task_group
    def each(batch: str) -> None:
        """Request and execute the review of a batch.

        A failure does not stop the reviews of other batches.
        """
        checked = tasks.check(batch)
        # `settle` reads the decision itself: a user may mark `review` as success without an answer.
        tasks.review(checked) >> tasks.settle(checked)

    tasks.seal_after(each.expand(batch=tasks.batches()) >> tasks.verify())


review_intake()
