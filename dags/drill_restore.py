"""### Restore drill

**Policy clause 4.2:** backups can be recovered. A backup that was never restored is a hope, not a backup.

**What it does.** For every mapped database it chooses a restore point. It first proves that a damaged copy and a wrong
key are refused. Then it restores into a scratch database with a generated name, compares every table with the
checksums of the backup, and checks every foreign key. It replays the erasure ledger and proves that no erased person is
back. It measures RTO and RPO, and drops the scratch database. The task `drop_scratch` drops databases that killed
drills left. If the drill server is away, `choose` and then `drop_scratch` give up after their retries; only then is the
bundle sealed.

**Schedule:** weekly, Sunday 04:00 in the policy pack's timezone, and by hand at any time. **Inputs:** restore points in
`offsite_store`; `drill_db` (the server for scratch databases, with the drill's private key); `state_db` (erasure ledger).

**Writes:** a sealed bundle with the report to `evidence_store`. The live databases are not touched.

**Red means** that a restore failed, differs, was later than its RTO, held only old records or brought back an erased
person; or that damage was not refused, or a restore point cannot be trusted. **What to do:** do not count on that
restore point; read the report in the bundle that the task `gate` names, run `backup_offsite`, then this drill again. If
damage or a swap is reported, raise an incident. **Owner:** data engineering.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task_group

from include.backup.workflow import DRILL_RESTORE
from include.orchestration.tasks import dag_settings, tasks_of


@dag(
    **dag_settings(
        DRILL_RESTORE,
        schedule="0 4 * * 0",
        page=__doc__,
        params={
            "choose": Param(
                "policy",
                enum=["policy", "latest", "undrilled"],
                title="Restore point",
                description="Which one to drill: as the policy pack says, the latest, or a random one never drilled.",
            ),
        },
    )
)
def drill_restore() -> None:
    """Drill every mapped database and leave a sealed bundle."""
    tasks = tasks_of(DRILL_RESTORE)

    @task_group
    def each(database: str) -> None:
        """One database; what happens to it does not touch the others."""
        tasks.drill(tasks.refusals(tasks.choose(database)))

    dropped = tasks.drop_scratch()  # runs whatever became of the drills
    each.expand(database=tasks.databases()) >> dropped
    tasks.seal_after(dropped)


drill_restore()
