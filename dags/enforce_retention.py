"""### Deletion on time

**Policy clause 5.3:** information is deleted promptly after use (PIPL articles 19 and 47).

**Function.** For every mapped database the workflow plans which records to erase: expired records that are not on legal
hold and to which no other record refers, and records of data subjects who requested erasure. If the plan is larger than
usual, the run waits for the approval of a second person. The approval names the hash of the plan, and is not valid for
any other plan. Then the workflow masks and deletes records in short transactions, and drops whole partitions. A record
is deleted before the records to which it refers. Each transaction reads the legal holds again, and writes a keyed hash
of the key of each erased record to the erasure ledger. Separate queries count the remaining expired records. The run
also removes evidence bundles past their retention period (`evidence.yaml`). It removes none of them while any legal
hold is active.

**Schedule:** daily at 03:30 in the policy pack's timezone. **Inputs:** `retention.yaml`, `disposition.yaml` and
`evidence.yaml` of the pack; connections `customer_db` (reads), `retention_db` (deletes), `state_db`, `evidence_store`,
`offsite_store`.

**Writes:** deletes and masks records; the erasure ledger in `state_db`; a sealed bundle with plan and certificate of
deletion to `evidence_store`. Approvers answer under *Browse > Required Actions*.

**Red means** one of these: expired records remain without an explanation; an erasure request is overdue; evidence past
its retention period does not verify; a step failed. A legal hold or another record that refers to the expired record is
an explanation. An unapproved plan, a table outside of the data map, and a deletion that the database refused are not an
explanation. **Action:** read the certificate in the bundle that the task `gate` names. If the run has no bundle, read
the log of the task `seal`. Remove the cause and run this workflow again: it repeats no completed deletion, and it
continues the work of a killed run. Place a legal hold (`./parcelseal hold add`) only for a case, not to make a red run
pass. A deletion cannot be undone. More: docs/how-to/answer-a-deletion.md. **Owner:** information management.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.orchestration.param_formats import past_moment_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.retention.workflow import ENFORCE_RETENTION


@dag(
    **dag_settings(
        ENFORCE_RETENTION,
        schedule="30 3 * * *",
        page=__doc__,
        params={
            "as_of": past_moment_param(
                "As of / 截至日期",
                "Day (2026-11-25) or time with offset (2026-11-25T03:30:00+08:00) on which the retention "
                "period of records has to have ended; not in the future; empty means today. "
                "以该日期（或带时区的时间）为准，保存期限须已届满；不得晚于现在；留空为今天。",
            ),
        },
    )
)
def enforce_retention() -> None:
    """Erase expired records from every mapped database and seal the evidence bundle."""
    tasks = tasks_of(ENFORCE_RETENTION)

    @task_group
    def each(database: str) -> None:
        """Dispose of expired records of a database.

        A failure does not stop the work on other databases.
        """
        planned = tasks.plan(database)
        # `execute` reads the decision itself: a user may mark `approve` as success without an answer.
        tasks.approve(planned) >> tasks.execute(planned) >> tasks.verify(planned)

    tasks.seal_after([each.expand(database=tasks.databases()), tasks.prune_evidence()])


enforce_retention()
