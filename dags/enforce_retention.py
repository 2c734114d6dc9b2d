"""### Deletion on time

**Policy clause 5.3:** information is deleted promptly after use (PIPL articles 19 and 47).

**What it does.** For every mapped database it plans what the retention schedule lets go: expired records that no legal
hold keeps and no other record refers to, and what data subjects asked to have erased. A larger plan than usual waits
for a second person, bound to the plan's hash. Then it masks, deletes children before parents in short transactions, and
drops whole partitions; holds are asked inside each transaction, and each erased record's key stands in the erasure
ledger as a keyed hash. Queries of its own count what is left. Beside that, it removes evidence bundles past their term
(`evidence.yaml`); while any legal hold is active, none.

**Schedule:** daily at 03:30 in the policy pack's timezone. **Inputs:** `retention.yaml`, `disposition.yaml` and
`evidence.yaml` of the pack; connections `customer_db` (reads), `retention_db` (deletes), `state_db`, `evidence_store`,
`offsite_store`. **Writes:** deletes and masks records; the erasure ledger in `state_db`; a sealed bundle with plan and
certificate to `evidence_store`. Approvers answer under *Browse > Required Actions*.

**Red means** that expired records remain without a hold or another record that explains them (a plan that nobody
approved, a table outside the data map, records that the database refused), that a data subject's request is late, that
evidence past its term does not verify, or that a step failed. **What to do:** read the certificate in the bundle that
the task `gate` names (no bundle: the log of the task `seal`), remove the cause, run this workflow again: what was done
is not done twice, and a killed run goes on. A hold (`./parcelseal hold add`) is for a case, not for a red run. Nothing
here can be undone. More: docs/retention.md. **Owner:** information management.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import TriggerRule, dag, task, task_group

from include.orchestration import retention
from include.orchestration.human import HumanStep
from include.orchestration.inputs import past_moment_param
from include.orchestration.tasks import dag_settings, tasks_of
from include.orchestration.workflow import databases_param
from include.retention.workflow import ENFORCE_RETENTION
from include.workflow.declaration import Queue


@dag(
    **dag_settings(
        ENFORCE_RETENTION,
        schedule="30 3 * * *",
        page=__doc__,
        params={
            "databases": databases_param(),
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

    @task
    def plan(database: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Count what goes, what holds keep and what refers to it; keep the plan as a file."""
        return retention.plan(database, (params or {}).get("as_of"))

    @task
    def execute(planned: dict[str, Any]) -> dict[str, Any]:
        """Erase in short transactions what the plan names and nothing keeps."""
        return retention.execute(planned["part"])

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def verify(planned: dict[str, Any] | None) -> dict[str, Any]:
        """Count by queries of its own what is left; skipped where no plan was made."""
        return retention.verify(planned)

    @task_group
    def each(database: str) -> None:
        """One database; what happens to it does not touch the others."""
        planned = plan(database)
        approve = HumanStep(
            task_id="approve",
            about=planned,
            ask=retention.ask,
            take=retention.take,
            optional=True,
            response_timeout=retention.response_timeout(),
        )
        # Nothing of the approval's is handed on: somebody may mark it as done without an answer.
        approve >> execute(planned) >> verify(planned)

    @task(queue=Queue.SEALING)  # it signs how far evidence was removed
    def prune_evidence() -> dict[str, Any]:
        """Remove the files of evidence past its term; a legal hold keeps all evidence."""
        return retention.prune_evidence()

    last = [each.expand(database=tasks.databases()), prune_evidence()]
    tasks.seal_after(last, retention.seal_retention)


enforce_retention()
