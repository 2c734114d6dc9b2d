"""### Deletion on time

**Policy clause 5.3:** information is deleted promptly after use (PIPL articles 19 and 47).

**What it does.** For every mapped database it plans which records to erase: expired records that no legal hold keeps and
no other record refers to, and records of data subjects who requested erasure. A larger plan than usual waits for the
approval of a second person, which is bound to the plan's hash. Then it masks records, deletes children before parents
in short transactions, and drops whole partitions. Each transaction reads the holds again, and enters the key of each
erased record in the erasure ledger as a keyed hash. Separate queries count what is left. The run also removes evidence
bundles past their term (`evidence.yaml`), but none while any legal hold is active.

**Schedule:** daily at 03:30 in the policy pack's timezone. **Inputs:** `retention.yaml`, `disposition.yaml` and
`evidence.yaml` of the pack; connections `customer_db` (reads), `retention_db` (deletes), `state_db`, `evidence_store`,
`offsite_store`. **Writes:** deletes and masks records; the erasure ledger in `state_db`; a sealed bundle with plan and
certificate to `evidence_store`. Approvers answer under *Browse > Required Actions*.

**Red means** one of these: expired records remain without a hold or another record that explains them (a plan that
nobody approved, a table outside the data map, records that the database refused); a data subject's request is late;
evidence past its term does not verify; a step failed. **What to do:** read the certificate in the bundle that the task
`gate` names (no bundle: the log of the task `seal`), remove the cause, and run this workflow again. Nothing is done
twice, and a killed run goes on. A hold (`./parcelseal hold add`) is for a case, not for a red run. Nothing here can be
undone. More: docs/retention.md. **Owner:** information management.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.orchestration.inputs import past_moment_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.retention.workflow import ENFORCE_RETENTION


@dag(
    **dag_settings(
        ENFORCE_RETENTION,
        schedule="30 3 * * *",
        page=__doc__,
        params={
            "as_of": past_moment_param(
                "As of",
                "Day (2026-11-25) or moment with offset (2026-11-25T03:30:00+08:00) for which records are "
                "over, never in the future; empty means today.",
            ),
        },
    )
)
def enforce_retention() -> None:
    """Erase what expired from every mapped database and leave a sealed bundle."""
    tasks = tasks_of(ENFORCE_RETENTION)

    @task_group
    def each(database: str) -> None:
        """Work on one database; a failure does not stop the others."""
        planned = tasks.plan(database)
        # The approval passes nothing on: somebody may mark it as done without an answer.
        tasks.approve(planned) >> tasks.execute(planned) >> tasks.verify(planned)

    tasks.seal_after([each.expand(database=tasks.databases()), tasks.prune_evidence()])


enforce_retention()
