"""### Restore drill

**Policy clause 4.2:** backups can be recovered. Only a restore proves that.

**Function.** For every mapped database the workflow chooses a restore point. It first proves that a restore with
damaged data or a wrong key is refused. Then it restores the restore point into a scratch database with a generated
name, compares every table with the checksums of the backup, and checks every foreign key. It replays the erasure ledger
and proves that the restored database has no erased records. It measures RTO and RPO, and drops the scratch database.
The task `drop_scratch` drops scratch databases that were left behind by drills whose process was killed. If the drill
server is down, the tasks `choose` and `drop_scratch` are retried, and then the bundle is sealed without a drill.

**Schedule:** Sundays at 04:00 in the policy pack's timezone; it may be triggered by hand at any time. **Inputs:**
restore points in `offsite_store`; `drill_db` (the server for scratch databases, with the private key of the drill);
`state_db` (erasure ledger).

**Writes:** a sealed bundle with the report to `evidence_store`. The live databases are not changed.

**Red means** one of these: a restore failed, differs from the backup, exceeded its RTO or RPO, or brought back erased
records; damaged data was not refused; a restore point cannot be trusted. **Action:** do not rely on that restore point.
Read the report in the bundle that the task `gate` names, run `backup_offsite`, then run this drill again. If the report
states that a restore point is damaged or was exchanged, open an incident. **Owner:** data engineering.
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
                title="Restore point / 恢复点",
                description="Restore point to drill: as the policy pack defines, the latest, or a random restore "
                "point that was never drilled. 演练使用的恢复点：按制度包规定、最新，或者随机选取从未演练过的恢复点。",
                values_display={
                    "policy": "As the policy pack defines / 按制度包规定",
                    "latest": "Latest / 最新",
                    "undrilled": "Never drilled / 从未演练过",
                },
            ),
        },
    )
)
def drill_restore() -> None:
    """Restore every mapped database for a drill and seal the evidence bundle."""
    tasks = tasks_of(DRILL_RESTORE)

    @task_group
    def each(database: str) -> None:
        """Restore a database for a drill; a failure does not stop the drills of other databases."""
        tasks.drill(tasks.refusals(tasks.choose(database)))

    dropped = tasks.drop_scratch()  # runs also after failed drills
    each.expand(database=tasks.databases()) >> dropped
    tasks.seal_after(dropped)


drill_restore()
