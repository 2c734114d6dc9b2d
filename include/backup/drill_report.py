"""Decide the outcome of a run of `drill_restore`, and write its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from include.backup.drill import CHOOSE, DRILL, RestoreDrill
from include.backup.drill_proofs import is_proved
from include.backup.offsite_findings import CLAUSE
from include.backup.refusals import REFUSALS, Refusals, Variant
from include.evidence.model import Finding, Metric, Outcome
from include.messages import Message, _, listed
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion, metric_of, missing_record
from include.reports.model import (
    Block,
    Cell,
    Fact,
    Paragraph,
    Section,
    Steps,
    Target,
    TrendChart,
    TrendPoint,
    must_be_zero,
    text_table,
)
from include.state.tables import drill as drill_table
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Restore drill")
MOST_DRILLS = 26  # half a year of weekly drills in the trend


@dataclass(frozen=True)
class PastDrill:
    """An earlier restore drill of a database. The report shows it as a point of a trend.

    Attributes:
        at: time of the drill.
        outcome: outcome of the drill for this database.
        restore_seconds: restore time in seconds; None if it was not measured.
    """

    at: datetime
    outcome: Outcome
    restore_seconds: float | None


def past_drills(state: Engine, database: str) -> list[PastDrill]:
    """Return the latest `MOST_DRILLS` restore drills of a database, oldest first."""
    query = (
        select(drill_table.c.drilled_at, drill_table.c.outcome, drill_table.c.restore_seconds)
        .where(drill_table.c.database == database)
        .order_by(drill_table.c.drilled_at.desc())
        .limit(MOST_DRILLS)
    )
    with state.connect() as conn:
        rows = conn.execute(query).all()
    return [PastDrill(at, Outcome(outcome), seconds) for at, outcome, seconds in reversed(rows)]


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Decide the outcome of a run of `drill_restore`, and write its report.

    The control passes only if every mapped database was restored and compared. The run fails if the
    record of a step is missing.
    """
    databases = list(run.pack.databases.values())
    findings = [finding for database in databases for finding in _missing(records, database.name)]
    if not databases:
        findings.append(
            missing_record(
                _("The restore"), "drill_restore", "drill.missing", CLAUSE, show_subject=False
            )
        )
    restored = [
        database.name for database in databases if is_proved(records.by_step, database.name)
    ]
    return records.conclude(
        TITLE,
        _summary(len(restored), len(databases), records.outcome(findings)),
        findings=findings,
        metrics=[
            Metric(
                name="databases_without_passed_drill",
                value=len(databases) - len(restored) if databases else None,
                unit="1",
            )
        ],
        facts=_facts(records, databases, restored),
        sections=[
            *[
                _database(records, database, past_drills(run.state, database.name))
                for database in databases
            ],
            _meaning(proven=bool(restored)),
        ],
    )


def _missing(records: RunRecords, database: str) -> list[Finding]:
    titles = {
        CHOOSE.name: _("The selection of a restore point"),
        REFUSALS.name: _("The test with damaged backups"),
        DRILL.name: _("The restore"),
    }
    for step, title in titles.items():
        record = records.find(step, database)
        if record is None:
            return [missing_record(title, database, f"drill.{step}.missing", CLAUSE)]
        if record.outcome is Outcome.FAIL and step == CHOOSE.name:
            return []
    return []


def _summary(restored: int, mapped: int, outcome: Outcome) -> Message:
    if restored < mapped:
        return _(
            "Only {restored} of {mapped} databases were restored successfully.",
            restored=restored,
            mapped=mapped,
        )
    if outcome is Outcome.FAIL:
        return _(
            "Every mapped database was restored, but the run has other failures: see the findings."
        )
    if outcome is Outcome.ATTENTION:
        return _("Every mapped database was restored; some findings need attention.")
    return _("Every mapped database was restored and matches the original.")


def _facts(
    records: RunRecords, databases: Sequence[MappedDatabase], restored: Sequence[str]
) -> list[Fact]:
    steps = [records.find(DRILL.name, database.name) for database in databases]
    drills = [records.result(DRILL, database.name) for database in databases]
    times = [metric_of(step, "drill.rto_seconds") for step in steps]
    ages = [metric_of(step, "drill.rpo_seconds") for step in steps]
    return [
        Fact(
            label=_("Databases restored"),
            value=_("{count} of {total}", count=len(restored), total=len(databases)),
            status=must_be_zero(len(databases) - len(restored)),
        ),
        _slowest(_("Longest restore"), times, Outcome.FAIL),
        _slowest(_("Age of the newest restore point"), ages, Outcome.ATTENTION),
        Fact(
            label=_("Rows compared"),
            value=sum(drill.rows or 0 for drill in drills if drill) if any(steps) else None,
            unit="rows",
        ),
        _brought_back(drills),
    ]


def _brought_back(drills: Sequence[RestoreDrill | None]) -> Fact:
    """Return the report's figure for erased records that remain in the restored copies.

    These records are still present after the replay of erasures. The figure has no value if a drill
    has no result. If the erasure ledger has no entries for the databases, the figure says that no
    erased record had to be checked.

    Args:
        drills: result of the restore drill of each database; None if the drill has no result.
    """
    label = _("Erased records that the restore brought back")
    measured = [drill for drill in drills if drill and drill.erasures is not None]
    if not measured or len(measured) < len(drills):
        return Fact(label=label, value=None)
    entries = sum(drill.erasures or 0 for drill in measured)
    missed = sum(drill.not_looked_for or 0 for drill in measured)
    # If no erased record remains, rows that still contain keys of erased records are counted.
    came_back = sum(drill.remaining or sum((drill.holding or {}).values()) for drill in measured)
    if not entries:
        empty = _("the erasure ledger has no records of these databases")
        return Fact(label=label, value=_("no erased records to check"), note=empty)
    if missed and not came_back:
        unsearched = _(
            "the run could not search for {count} erased records that are listed in the "
            "erasure ledger",
            count=missed,
        )
        return Fact(label=label, value=None, status=Outcome.FAIL, note=unsearched)
    return Fact(
        label=label,
        value=came_back,
        status=must_be_zero(came_back),
        note=_(
            "the run searched for {count} erased records that are listed in the erasure ledger",
            count=entries - missed,
        ),
    )


def _slowest(label: Message, figures: Sequence[Metric | None], late: Outcome) -> Fact:
    measured = [figure for figure in figures if figure is not None and figure.value is not None]
    if not measured:
        return Fact(label=label, value=None)
    worst = max(measured, key=lambda figure: (figure.value or 0) / (figure.target or 1))
    within = worst.target is None or (worst.value or 0) <= worst.target
    return Fact(
        label=label,
        value=worst.value,
        unit="seconds",
        status=Outcome.PASS if within else late,
        note=_("target: at most {hours} h", hours=round((worst.target or 0) / 3600, 1)),
    )


def _database(
    records: RunRecords, database: MappedDatabase, history: Sequence[PastDrill]
) -> Section:
    refusals = records.result(REFUSALS, database.name)
    choice = records.result(CHOOSE, database.name)
    drill = records.result(DRILL, database.name) or RestoreDrill()
    checks: list[tuple[Message, Cell]] = [
        (
            _("A backup with one changed byte is refused"),
            _was_refused(Variant.FLIPPED_BYTE, refusals),
        ),
        (_("A truncated backup is refused"), _was_refused(Variant.TRUNCATED, refusals)),
        (_("A wrong key is refused"), _was_refused(Variant.WRONG_KEY, refusals)),
        (_("Tables whose content was compared"), drill.compared),
        (_("Rows restored"), drill.rows),
        (_("Foreign keys checked row by row"), drill.foreign_keys),
        (_("Database objects in the backup that were not restored"), _left_out(drill)),
        (
            _("Newest record in the restored database"),
            None if drill.rows is None else _newest(drill),
        ),
        (_("Erased or masked records listed in the erasure ledger"), drill.erasures),
        (_("Erased records that were found in the backup and erased again"), drill.replayed),
        (
            _("Masked records that were found unmasked in the backup and masked again"),
            drill.remasked,
        ),
        (
            _("Erased or masked records still present after they were erased or masked again"),
            drill.remaining,
        ),
        (_("Materialized views refreshed after records were erased again"), drill.views_refreshed),
        (
            _("Rows of other tables and views that still contain keys of erased records"),
            None if drill.holding is None else sum(drill.holding.values()),
        ),
    ]
    blocks: list[Block] = [
        text_table(_("Results of the checks"), (_("Check"), _("Result")), checks),
        TrendChart(
            caption=_("Restore time of past drills"),
            unit="seconds",
            points=[
                TrendPoint(at=past.at, value=past.restore_seconds, status=past.outcome)
                for past in history
            ],
            target=Target(value=database.rto.total_seconds(), label=_("RTO")),
        ),
    ]
    return Section(
        heading=_(
            "{database}: restore point {point}",
            database=database.title,
            point=drill.restore_point or (choice.restore_point if choice else "—"),
        ),
        blocks=blocks,
    )


def _was_refused(variant: Variant, refusals: Refusals | None) -> Message | None:
    """Return "yes" if the restore refused a damaged backup or wrong key, and otherwise "no".

    Args:
        variant: way in which the restore point or its key was changed.
        refusals: result of the step that tests refusals. If it is None, the result is None.
    """
    if refusals is None:
        return None
    return _("yes") if variant in refusals.refused else _("no")


def _left_out(drill: RestoreDrill) -> Message | None:
    if drill.left_out is None:
        return None
    return listed(drill.left_out) if drill.left_out else _("none")


def _newest(drill: RestoreDrill) -> Message | datetime:
    if drill.newest is None:
        return _("not checked: the data map names no time column")
    return _("the database has no record") if drill.newest == "none" else drill.newest


def _meaning(*, proven: bool) -> Section:
    heading = _("Scope and limits of this report")
    if not proven:
        text = _(
            "This drill did not prove that any database can be restored. It proves only the "
            "facts in its findings."
        )
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    return Section(
        heading=heading,
        blocks=[
            Paragraph(
                text=_(
                    "Each restore point that passed was fetched from the off-site store, "
                    "decrypted with the drill's own key and restored into a scratch database, "
                    "which was deleted afterwards. The production database was not changed."
                )
            ),
            Steps(
                items=[
                    _("The restored tables were compared with the checksums of the backup."),
                    _(
                        "If the erasure ledger lists records of these databases, the run "
                        "erased them again in the restored databases and then searched for "
                        "them."
                    ),
                    _("This run did not check any other restore points."),
                ]
            ),
        ],
    )
