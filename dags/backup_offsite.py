"""### Off-site backup

**Policy clause 4.2:** customer information is backed up regularly, encrypted and away from the primary site, and can be
recovered.

**Function.** The workflow dumps every mapped database from one consistent snapshot, compresses the dump, encrypts it to
at least two public keys, and stores it off-site, all in one stream. Each restore point gets a signed manifest. Old
restore points are pruned, but a minimum number of restore points (`keep.floor` in `backup.yaml`) is always kept. A
restore point that is locked or on legal hold is never pruned.

**Schedule:** daily at 02:00 in the policy pack's timezone. **Inputs:** the data map of the policy pack; connections
`customer_db` (and others that the data map names), `offsite_store`, `state_db`, `evidence_store`.

**Writes:** restore points to `offsite_store`; a sealed bundle with the report (English, Chinese) to `evidence_store`.

**Red means** that a mapped database has no verified restore point from this run, or that an older restore point cannot
be trusted. **Action:** open the report in the bundle that the task `gate` names; each finding states an action. Then
run this workflow again. A failed run does not change restore points of earlier days. **Owner:** data engineering.
"""

from __future__ import annotations

from airflow.sdk import dag, task_group

from include.backup.workflow import BACKUP_OFFSITE
from include.orchestration.tasks import dag_settings, tasks_of


@dag(**dag_settings(BACKUP_OFFSITE, schedule="0 2 * * *", page=__doc__))
def backup_offsite() -> None:
    """Back up every mapped database and seal the evidence bundle."""
    tasks = tasks_of(BACKUP_OFFSITE)

    @task_group
    def each(database: str) -> None:
        """Back up a database. A failure does not stop the backups of other databases."""
        tasks.prune(tasks.backup(database))

    databases = tasks.databases()
    tasks.preflight() >> databases
    tasks.seal_after(each.expand(database=databases))


backup_offsite()
