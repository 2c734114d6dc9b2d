"""Findings of a restore drill about its comparison and its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from include.backup.compare import Comparison
from include.backup.explain import CheckRefusesRows
from include.backup.manifest import Manifest
from include.backup.offsite import CLOCK_TOLERANCE
from include.backup.server_needs import DatabaseLocale
from include.erasure.replay import Replay, holding_text
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.rules import Drill as DrillRules

ERASURE_CLAUSE = "5.3"  # delete promptly after use: a restore must not undo it
MOST_NAMES = 10  # in a message; the step's record has all of them
Newest = datetime | Literal["none"] | None  # moment of the newest record of a copy
STOP = _("Do not rely on this restore point. Take a new backup, drill it, raise an incident.")


def judge_tables(
    findings: StepFindings, missing_rows: Sequence[str], different: Sequence[str]
) -> None:
    """Enter the findings about rows and contents of tables.

    Args:
        findings: takes the findings.
        missing_rows: labels of tables with another number of rows than the manifest.
        different: labels of tables with another content than the original.
    """
    for label in sorted(set(missing_rows)):
        message = _("Table {table} has another number of rows than the manifest.", table=label)
        findings.find("drill.rows", Outcome.FAIL, message, STOP)
    for label in sorted(set(different) - set(missing_rows)):
        message = _("Table {table} has other content than the original.", table=label)
        findings.find("drill.content", Outcome.FAIL, message, STOP)


def judge_check(findings: StepFindings, refused: CheckRefusesRows) -> None:
    """Add a finding that names the CHECK constraint that made the load fail."""
    findings.find(
        "drill.check_constraint",
        Outcome.FAIL,
        _(
            "The backup cannot be loaded: the CHECK constraint {names} calls a function that "
            "refused a row. A backup by pg_dump is loaded table by table. If the constraint reads "
            "other rows or tables, they may not be loaded yet.",
            names=refused.constraints,
        ),
        _(
            "Replace the constraint by a trigger or a foreign key, or add it again as NOT VALID, "
            "which still checks new rows. Then take a new backup and drill it."
        ),
    )


def judge_schema(findings: StepFindings, comparison: Comparison, manifest: Manifest) -> None:
    """Name the definitions that differ; the server's version explains only changed ones."""
    differing, copy_version = comparison.definitions, comparison.server_version
    if differing.missing:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _("The restored copy lacks: {names}.", names=_first(differing.missing)),
            _("A restore loses them. Create them by hand after a restore, and report the defect."),
        )
    if differing.added:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _(
                "The restored copy has definitions that the original lacks: {names}.",
                names=_first(differing.added),
            ),
            _("Find the extension or event trigger of the drill server that creates it."),
        )
    if differing.changed:
        findings.find(
            "drill.schema",
            Outcome.ATTENTION,
            _(
                "The restored copy has another definition of: {names}.",
                names=_first(differing.changed),
            ),
            _(
                "Compare both definitions. The original was on PostgreSQL {before}, the copy is on "
                "{after}, which may print them differently.",
                before=manifest.server_version,
                after=copy_version,
            )
            if copy_version != manifest.server_version
            else _("Compare both definitions; both servers have the same version of PostgreSQL."),
        )


def judge_locale(findings: StepFindings, original: DatabaseLocale, copy: DatabaseLocale) -> None:
    """Add a finding if the copy has another default collation than the original."""
    if not original.sorts_like(copy):
        findings.find(
            "drill.locale",
            Outcome.ATTENTION,
            _(
                "The drill server lacks the default collation of the original, {original}. The "
                "copy was made with {copy}, and sorts texts differently.",
                original=original.collation,
                copy=copy.collation,
            ),
            _(
                "Install the locale on the server of drill_db, or point drill_db to a server "
                "that has it."
            ),
        )


def _first(names: Sequence[str]) -> str:
    """Return at most ten names, and the number of further names."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f", … (+{more})" if more > 0 else "")


def judge_newest(
    findings: StepFindings,
    moments: Sequence[datetime | None],
    manifest: Manifest,
    rules: DrillRules,
) -> Newest:
    """Enter the finding about the newest record of the copy.

    Returns:
        Its moment, "none" without a record, None where the data map names no clock.
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
                "The newest record of the restored copy is older than {hours} hours.",
                hours=rules.newest_record_window_hours,
            ),
            _("See whether records still reach the database; if they do, raise an incident."),
        )
    elif max(records) > manifest.taken_at + window:
        findings.find(
            "drill.future",
            Outcome.ATTENTION,
            _("The newest record of the restored copy is dated in the future."),
            _("Correct the clock of the system that writes it."),
        )
    return max(records) if records else "none"


def judge_replay(findings: StepFindings, replayed: Replay) -> None:
    """Report erased records that are in the copy, or that could not be searched for."""
    if replayed.remaining:
        findings.find(
            "drill.erased_present",
            Outcome.FAIL,
            _(
                "{count} erased or masked records are back in the restored copy.",
                count=replayed.remaining,
            ),
            STOP,
            clause=ERASURE_CLAUSE,
        )
    if replayed.holding:
        findings.find(
            "drill.erased_key_present",
            Outcome.FAIL,
            _(
                "Keys of erased records are still in the restored copy: {relations}.",
                relations=holding_text(replayed),
            ),
            _(
                "Add a retention rule for each table that keeps copies of records, and check "
                "that retention erases there too. Until then, every restore brings erased "
                "records back."
            ),
            clause=ERASURE_CLAUSE,
        )
    if replayed.not_looked_for:
        findings.find(
            "drill.erased_not_looked_for",
            Outcome.FAIL,
            _(
                "{count} erased records could not be looked for: the copy has no table, or one "
                "with another primary key, for {names}.",
                count=replayed.not_looked_for,
                names=", ".join((*replayed.skipped, *replayed.other_keys)),
            ),
            _(
                "If the table was renamed or its key was changed, search a restored copy for them "
                "under the earlier name or key. If the table is younger than the restore point, "
                "drill a newer restore point."
            ),
            clause=ERASURE_CLAUSE,
        )


def judge_targets(
    findings: StepFindings, database: MappedDatabase, usable_after: float, age: timedelta
) -> None:
    """Measure RTO and RPO, and enter the findings about them.

    Args:
        findings: takes figures and findings.
        database: with its targets.
        usable_after: seconds from the begin of the restore to a usable database.
        age: of the newest restore point.
    """
    findings.measure("drill.rto_seconds", usable_after, "seconds", database.rto.total_seconds())
    findings.measure(
        "drill.rpo_seconds", age.total_seconds(), "seconds", database.rpo.total_seconds()
    )
    if usable_after > database.rto.total_seconds():
        findings.find(
            "drill.late",
            Outcome.FAIL,
            _("The restore took longer than its RTO."),
            _("Give drill_db a faster server, or agree on a longer RTO."),
        )
    if age < -CLOCK_TOLERANCE:
        findings.find(
            "drill.from_the_future",
            Outcome.FAIL,
            _("The newest restore point was taken in the future, so its age is unknown."),
            _("Set the clocks of the worker and the database server right."),
        )
    if age > database.rpo:
        findings.find(
            "drill.old",
            Outcome.ATTENTION,
            _("The restore point is older than the RPO allows."),
            _("See why backup_offsite made no newer one, and run it."),
        )
