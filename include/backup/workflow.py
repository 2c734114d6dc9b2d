"""Declarations of `backup_offsite` and `drill_restore`."""

from __future__ import annotations

from include.backup import drill_report, offsite_report
from include.backup.drill import CHOOSE, DRILL
from include.backup.offsite import BACKUP, PREFLIGHT, PRUNE
from include.backup.refusals import REFUSALS
from include.messages import _
from include.workflow.declaration import AccessGroup, Cadence, Queue, Workflow

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
    steps=(CHOOSE, REFUSALS, DRILL),
    conclude=drill_report.conclude,
)
