"""Declare the workflows `backup_offsite` and `drill_restore`."""

from __future__ import annotations

from collections.abc import Iterator

from include.backup import drill_report, offsite_report
from include.backup.drill import CHOOSE, DRILL, DROP_SCRATCH
from include.backup.offsite import BACKUP, MANIFEST_PREFIX, PREFLIGHT, PRUNE
from include.backup.refusals import REFUSALS
from include.messages import _
from include.workflow.assets import Asset, AssetEvent, SealedRecords
from include.workflow.declaration import AccessGroup, Cadence, Queue, Workflow


def restore_points(sealed: SealedRecords) -> Iterator[AssetEvent]:
    """Yield an Airflow asset event for each database that a run backed up.

    The extra of the event names the restore point and the digest of its manifest.
    """
    for database, backup in sealed.records.results(BACKUP).items():
        yield AssetEvent(
            database,
            sealed.outcome_of((PREFLIGHT.name, ""), (BACKUP.name, database)),
            {
                "database": database,
                "restore_point": backup.restore_point,
                "manifest_sha256": sealed.digests.get(f"{MANIFEST_PREFIX}{database}.json"),
            },
        )


BACKUP_OFFSITE = Workflow[None](
    id="backup_offsite",
    title=_("Off-site backup"),
    summary="Every mapped database: dump, encrypt, store off-site, verify, prune, seal.",
    topic="backup",
    clauses=("4.2",),
    cadence=Cadence.DAILY,
    owner="data_engineering",
    access=AccessGroup.BACKUPS,
    chooses_databases=True,
    queue=Queue.BACKUP,
    steps=(PREFLIGHT, BACKUP, PRUNE),
    conclude=offsite_report.conclude,
    produces=(Asset("restore-point", restore_points),),
)

DRILL_RESTORE = Workflow[None](
    id="drill_restore",
    title=_("Restore drill"),
    summary="Restore a backup into a scratch database, compare it with its manifest, drop it.",
    topic="backup",
    further_topics=("restore",),
    clauses=("4.2",),
    cadence=Cadence.WEEKLY,
    owner="data_engineering",
    access=AccessGroup.BACKUPS,
    queue=Queue.DRILL,
    steps=(CHOOSE, REFUSALS, DRILL, DROP_SCRATCH),
    conclude=drill_report.conclude,
)
