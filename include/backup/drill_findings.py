"""Add findings about a restore drill: differences from the original, and missed RTO or RPO."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from include.backup.compare import Comparison
from include.backup.explain import CheckRefusesRows
from include.backup.manifest import Manifest
from include.backup.offsite import CLOCK_TOLERANCE
from include.backup.server_needs import DatabaseLocale
from include.erasure.replay import ReplayResult, leftover_keys_text
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _, listed
from include.policy.datamap import MappedDatabase
from include.policy.rules import Drill as DrillRules

ERASURE_CLAUSE = "5.3"  # delete promptly after use: a restore must not undo it
MOST_NAMES = 10  # in a message; the step's record has all of them
Newest = datetime | Literal["none"] | None  # moment of the newest record of a copy
STOP = _(
    "Do not use this restore point. Take a new backup, run a restore drill with it, and open an "
    "incident."
)
DRILL_SERVER = _("The connection `drill_db` contains the settings of the drill server.")


def judge_tables(
    findings: StepFindings, missing_rows: Sequence[str], different: Sequence[str]
) -> None:
    """Add a finding for each restored table whose row count or content differs from the original.

    Args:
        findings: findings of the step.
        missing_rows: labels of tables whose number of rows differs from the manifest.
        different: labels of tables whose content differs from the original.
    """
    for label in sorted(set(missing_rows)):
        message = _(
            "In the restored database, the number of rows of the table {table} differs "
            "from the manifest of the backup.",
            table=label,
        )
        findings.find("drill.rows", Outcome.FAIL, message, STOP)
    for label in sorted(set(different) - set(missing_rows)):
        message = _(
            "In the restored database, the content of the table {table} differs from the original.",
            table=label,
        )
        findings.find("drill.content", Outcome.FAIL, message, STOP)


def judge_check(findings: StepFindings, refused: CheckRefusesRows) -> None:
    """Add a finding that names the CHECK constraint that prevents the load of a backup.

    Args:
        findings: findings of the step.
        refused: error of the failed load. It lists the constraints.
    """
    findings.find(
        "drill.check_constraint",
        Outcome.FAIL,
        _(
            "The backup cannot be restored: the check constraint {constraints} refused a record.",
            constraints=refused.constraints,
        ),
        _(
            "Ask the data engineers to change this check constraint in the original database. "
            "Then take a new backup and run a restore drill with it."
        ),
        for_engineers=_(
            "The constraint calls a function. A backup by `pg_dump` is loaded table by table, "
            "so the tables or rows that the function reads may not be loaded yet when the "
            "constraint is checked. Replace the constraint by a trigger or a foreign key, or "
            "add it again as `NOT VALID`, which still checks new rows."
        ),
    )


def judge_schema(findings: StepFindings, comparison: Comparison, manifest: Manifest) -> None:
    """Add findings about objects whose definitions differ between restored copy and original.

    If the two servers have different versions, they may print the same definition differently. The
    finding about changed definitions then mentions this.

    Args:
        findings: findings of the step.
        comparison: result of the comparison of the copy with the manifest.
        manifest: manifest of the restore point.
    """
    differing, copy_version = comparison.definitions, comparison.server_version
    if differing.missing:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _(
                "The restored database lacks these objects of the original: {names}.",
                names=listed(differing.missing, MOST_NAMES),
            ),
            _(
                "Ask the data engineers to create the missing objects by hand after every "
                "restore, and to report this defect to the developers of ParcelSeal."
            ),
        )
    if differing.added:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _(
                "The restored database has objects that the original lacks: {names}.",
                names=listed(differing.added, MOST_NAMES),
            ),
            _(
                "Ask the data engineers to find the extension or event trigger that creates "
                "the additional objects on the drill server."
            ),
            for_engineers=DRILL_SERVER,
        )
    if differing.changed:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _(
                "The definitions of these objects differ between the restored database and the "
                "original: {names}.",
                names=listed(differing.changed, MOST_NAMES),
            ),
            _(
                "Ask the data engineers to compare the definitions of these objects in the "
                "original and in the restored database."
            ),
            for_engineers=_(
                "The original database ran on PostgreSQL {original}, and the drill server runs "
                "PostgreSQL {drill}. These versions may print the same definition of an object "
                "differently.",
                original=manifest.server_version,
                drill=copy_version,
            )
            if copy_version != manifest.server_version
            else _(
                "Both servers have the same version of PostgreSQL, so the version is not the "
                "cause of the difference."
            ),
        )


def judge_locale(findings: StepFindings, original: DatabaseLocale, copy: DatabaseLocale) -> None:
    """Add a finding if the restored copy and the original have different default collations.

    Args:
        findings: findings of the step.
        original: locale of the original database.
        copy: locale of the restored copy.
    """
    if not original.sorts_like(copy):
        findings.find(
            "drill.locale",
            Outcome.ATTENTION,
            _(
                "The drill server lacks the collation {original}, which is the default of the "
                "original database. The restored database uses the collation {copy} instead "
                "and sorts texts differently.",
                original=original.collation,
                copy=copy.collation,
            ),
            _(
                "Ask the data engineers to install the missing locale on the drill server, or to "
                "use another drill server."
            ),
            for_engineers=DRILL_SERVER,
        )


def judge_newest(
    findings: StepFindings,
    moments: Sequence[datetime | None],
    manifest: Manifest,
    rules: DrillRules,
) -> Newest:
    """Add a finding if the newest record of the restored copy does not fit the time of the backup.

    Args:
        findings: findings of the step.
        moments: newest value of each column that shows how recent the data is; None for an empty
            table. The data map names these columns.
        manifest: manifest with the time of the backup.
        rules: settings with the allowed difference between the newest record and the time of the
            backup.

    Returns:
        Date and time of the newest record. The text "none" means that all these columns are empty.
        None means that the data map names no such column.
    """
    records = [moment for moment in moments if moment is not None]
    if not moments:
        return None
    window = timedelta(hours=rules.newest_record_window_hours)
    if not records or max(records) < manifest.taken_at - window:
        findings.find(
            "drill.stale",
            Outcome.FAIL,
            _(
                "The restored database has no record from the last {hours} hours before the "
                "backup.",
                hours=rules.newest_record_window_hours,
            ),
            _(
                "Check whether new records still reach the original database. If they do, they "
                "are missing in the backup: open an incident."
            ),
        )
    elif max(records) > manifest.taken_at + window:
        findings.find(
            "drill.future",
            Outcome.ATTENTION,
            _("The newest record of the restored database is dated after the backup."),
            _(
                "Ask the data engineers to correct the clock of the system that wrote the newest "
                "record."
            ),
        )
    return max(records) if records else "none"


def judge_replay(findings: StepFindings, replayed: ReplayResult) -> None:
    """Add findings if erased records are still in the restored copy or could not be searched for.

    Args:
        findings: findings of the step.
        replayed: result of deleting and masking the records of the erasure ledger again.
    """
    if replayed.remaining:
        findings.find(
            "drill.erased_present",
            Outcome.FAIL,
            _(
                "{count} erased or masked records are present again in the restored database.",
                count=replayed.remaining,
            ),
            STOP,
            clause=ERASURE_CLAUSE,
        )
    if replayed.rows_with_erased_keys:
        findings.find(
            "drill.erased_key_present",
            Outcome.FAIL,
            _(
                "In the restored database, these tables and views still contain keys of erased "
                "records: {relations}.",
                relations=leftover_keys_text(replayed),
            ),
            _(
                "Define a retention period for each table that keeps copies of records, and "
                "check that the erasure of a record also erases its copies in these tables. "
                "Until then, every restore brings erased records back."
            ),
            clause=ERASURE_CLAUSE,
        )
    if replayed.unsearchable_entries:
        findings.find(
            "drill.erased_not_looked_for",
            Outcome.FAIL,
            _(
                "The drill could not search the restored database for {count} erased records "
                "of {collections}, because the tables of these records are missing there or "
                "have a different primary key.",
                count=replayed.unsearchable_entries,
                collections=listed([*replayed.skipped, *replayed.other_keys]),
            ),
            _(
                "Ask the data engineers to search a restored database for these erased records "
                "under the name or primary key that the table had at the time of the backup. "
                "If the table was created after the backup, run the restore drill with a newer "
                "restore point."
            ),
            clause=ERASURE_CLAUSE,
        )


def judge_targets(
    findings: StepFindings, database: MappedDatabase, usable_after: float, age: timedelta
) -> None:
    """Record the measured restore time and recovery point; add findings if they exceed RTO or RPO.

    Args:
        findings: findings and measurements of the step.
        database: mapped database with its RTO and RPO.
        usable_after: restore time in seconds, including the time to delete and mask erased records
            again.
        age: age of the newest restore point at the start of the drill.
    """
    findings.measure("drill.rto_seconds", usable_after, "seconds", database.rto.total_seconds())
    findings.measure(
        "drill.rpo_seconds", age.total_seconds(), "seconds", database.rpo.total_seconds()
    )
    if usable_after > database.rto.total_seconds():
        findings.find(
            "drill.late",
            Outcome.FAIL,
            _("The restore took longer than the recovery time objective (RTO) allows."),
            _("Ask the data engineers for a faster drill server, or agree on a longer RTO."),
            for_engineers=DRILL_SERVER,
        )
    if age < -CLOCK_TOLERANCE:
        findings.find(
            "drill.from_the_future",
            Outcome.FAIL,
            _("The newest restore point is dated in the future, so its age is unknown."),
            _(
                "Ask the data engineers to correct the clocks of the Airflow worker and of the "
                "database servers."
            ),
        )
    if age > database.rpo:
        findings.find(
            "drill.old",
            Outcome.ATTENTION,
            _("The newest restore point is older than the recovery point objective (RPO) allows."),
            _(
                "Find out why the off-site backup made no newer restore point, and run the "
                "off-site backup again."
            ),
            for_engineers=_("Find the cause in the newest runs of `backup_offsite`."),
        )
