"""### Off-site backup

**Policy clause 4.2:** customer information is backed up regularly, encrypted, apart from the primary site, and can be
recovered.

**What it does.** Every mapped database is dumped from one consistent snapshot, compressed, encrypted to at least two
public keys and stored off-site, all in one stream. Each restore point gets a signed manifest. Old restore points are
pruned, but never below the floor, and never while they are held or locked.

**Schedule:** daily at 02:00 in the policy pack's timezone. **Inputs:** the data map of the policy pack; connections
`customer_db` (and others the data map names), `offsite_store`, `state_db`, `evidence_store`.

**Writes:** restore points to `offsite_store`; a sealed bundle with the report (English, Chinese) to `evidence_store`.

**Red means** that a mapped database has no verified restore point from this run, or that an older one cannot be
trusted. **What to do:** open the report in the bundle that the task `gate` names; each finding says what to do. Then
run this workflow again. Restore points of earlier days are not touched by a failed run. **Owner:** data engineering.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.backup.workflow import BACKUP_OFFSITE
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(BACKUP_OFFSITE, schedule="0 2 * * *", page=__doc__))
def backup_offsite() -> None:
    """Back up every mapped database and leave a sealed bundle."""
    tasks = tasks_of(BACKUP_OFFSITE)

    @task_group
    def each(database: str) -> None:
        """One database; what happens to it does not touch the others."""
        tasks.prune(tasks.backup(database))

    databases = tasks.databases()
    tasks.preflight() >> databases
    tasks.seal_after(each.expand(database=databases))


backup_offsite()
