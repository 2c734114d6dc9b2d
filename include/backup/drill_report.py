"""Conclude a run of `drill_restore`, and write its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from include.backup.drill import CHOOSE, DRILL, RestoreDrill
from include.backup.offsite_findings import CLAUSE
from include.backup.proved import held
from include.backup.refusals import REFUSALS, Refusals, Variant
from include.evidence.model import Finding, Metric, Outcome
from include.messages import Message, _
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
    """A drill of a database, for its trend."""

    at: datetime
    outcome: Outcome
    restore_seconds: float | None


def past_drills(state: Engine, database: str) -> list[PastDrill]:
    """Return the latest drills of a database, oldest first."""
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
    """Judge a run: every mapped database was restored, compared and dropped again.

    A record that is missing fails.
    """
    databases = list(run.pack.databases.values())
    findings = [finding for database in databases for finding in _missing(records, database.name)]
    if not databases:
        findings.append(missing_record(_("The restore"), "drill_restore", "drill.missing", CLAUSE))
    restored = [database.name for database in databases if held(records.by_step, database.name)]
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
        CHOOSE.name: _("The choice of a restore point"),
        REFUSALS.name: _("The proof that damage is refused"),
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
    values = {"restored": restored, "wanted": mapped}
    if restored < mapped:
        return _("The drill proved a restore for only {restored} of {wanted} databases.", **values)
    if outcome is Outcome.FAIL:
        return _("The restores worked, but something else is wrong: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _("Every mapped database was restored; something needs attention.")
    return _("Every mapped database was restored and is the same as the original.")


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
            value=_("{made} of {wanted}", made=len(restored), wanted=len(databases)),
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
    """Count the erased records that are back; an empty erasure ledger is not judged."""
    label = _("Erased records brought back")
    measured = [drill for drill in drills if drill and drill.erasures is not None]
    if not measured or len(measured) < len(drills):
        return Fact(label=label, value=None)
    entries = sum(drill.erasures or 0 for drill in measured)
    missed = sum(drill.not_looked_for or 0 for drill in measured)
    # Rows with erased keys count where the records themselves are gone.
    came_back = sum(drill.remaining or sum((drill.holding or {}).values()) for drill in measured)
    if not entries:
        empty = _("the erasure ledger of these databases is empty")
        return Fact(label=label, value=_("nothing to check"), note=empty)
    if missed and not came_back:
        unsearched = _("{count} entries could not be looked for", count=missed)
        return Fact(label=label, value=None, status=Outcome.FAIL, note=unsearched)
    return Fact(
        label=label,
        value=came_back,
        status=must_be_zero(came_back),
        note=_("{count} entries of the erasure ledger were looked for", count=entries - missed),
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
        (_("A copy with one flipped byte is refused"), _yes(Variant.FLIPPED_BYTE, refusals)),
        (_("A truncated copy is refused"), _yes(Variant.TRUNCATED, refusals)),
        (_("A wrong key is refused"), _yes(Variant.WRONG_KEY, refusals)),
        (_("Tables whose content was compared"), drill.compared),
        (_("Rows restored"), drill.rows),
        (_("Foreign keys checked row by row"), drill.foreign_keys),
        (_("Left out of the restored copy"), _left_out(drill)),
        (_("Newest record in the copy"), None if drill.rows is None else _newest(drill)),
        (_("Entries of the erasure ledger"), drill.erasures),
        (_("Erased records that the copy held and that were erased again"), drill.replayed),
        (
            _("Masked records that the copy held in clear and that were masked again"),
            drill.remasked,
        ),
        (_("Erased or masked records still present afterwards"), drill.remaining),
        (_("Materialized views refreshed afterwards"), drill.views_refreshed),
        (
            _("Rows of other tables and views with keys of erased records"),
            None if drill.holding is None else sum(drill.holding.values()),
        ),
    ]
    blocks: list[Block] = [
        text_table(_("What was checked"), (_("Check"), _("Result")), checks),
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


def _yes(variant: Variant, refusals: Refusals | None) -> Message | None:
    """Return yes or no; None if the step did not try."""
    if refusals is None:
        return None
    return _("yes") if variant in refusals.refused else _("no")


def _left_out(drill: RestoreDrill) -> Message | str | None:
    if drill.left_out is None:
        return None
    return ", ".join(drill.left_out) or _("nothing")


def _newest(drill: RestoreDrill) -> Message | datetime:
    if drill.newest is None:
        return _("not looked at: the data map names no such column")
    return _("no record") if drill.newest == "none" else drill.newest


def _meaning(*, proven: bool) -> Section:
    heading = _("What this report proves, and what it does not")
    if not proven:
        text = _("This drill proves no restore; it proves only what its findings say.")
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    return Section(
        heading=heading,
        blocks=[
            Paragraph(
                text=_(
                    "Each restore point that held was fetched from the off-site store, decrypted "
                    "with the drill's own key and loaded into a scratch database that was dropped "
                    "afterwards. The live database was not touched."
                )
            ),
            Steps(
                items=[
                    _("Its tables were compared with the checksums taken at backup time."),
                    _("Entries of the erasure ledger, if any, were erased again and looked for."),
                    _("Other restore points were not looked at in this run."),
                ]
            ),
        ],
    )
