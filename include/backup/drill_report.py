"""What a run of `drill_restore` adds up to, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import Engine, select

from include.backup.preflight import CLAUSE
from include.backup.proved import held
from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion, by_step, metric_of, missing_record, worst
from include.reports.model import (
    Column,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    Target,
    TrendChart,
    TrendPoint,
)
from include.state.tables import drill as drill_table

TITLE = _("Restore drill")
MOST_DRILLS = 26  # half a year of weekly drills in the trend


@dataclass(frozen=True)
class PastDrill:
    """One drill of a database, for its trend."""

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


def conclude(
    records: Sequence[StepRecord],
    databases: Sequence[MappedDatabase],
    history: Mapping[str, Sequence[PastDrill]],
) -> Conclusion:
    """Judge a run: every mapped database was restored, compared and dropped again.

    A record that is missing fails.

    Args:
        records: what the steps left.
        databases: all that the data map names.
        history: past drills by database, this one included.
    """
    steps = by_step(records)
    findings = [finding for record in records for finding in record.findings]
    for database in databases:
        findings += _missing(steps, database.name)
    if not databases:
        findings.append(missing_record(_("The restore"), "drill_restore", "drill.missing", CLAUSE))
    outcome = worst(records, findings)
    restored = [one.name for one in databases if held(steps, one.name)]
    return Conclusion(
        title=TITLE,
        summary=_summary(len(restored), len(databases), outcome),
        outcome=outcome,
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            Metric(
                name="databases_without_passed_drill",
                value=len(databases) - len(restored) if databases else None,
                unit="1",
            ),
        ],
        facts=_facts(steps, databases, restored),
        sections=[
            *[_database(steps, one, history.get(one.name, ())) for one in databases],
            _meaning(proven=bool(restored)),
        ],
    )


def _missing(steps: Mapping[tuple[str, str], StepRecord], database: str) -> list[Finding]:
    names = {
        "choose": _("The choice of a restore point"),
        "refusals": _("The proof that damage is refused"),
        "drill": _("The restore"),
    }
    for step, name in names.items():
        record = steps.get((step, database))
        if record is None:
            return [missing_record(name, database, f"drill.{step}.missing", CLAUSE)]
        if record.outcome is Outcome.FAIL and step == "choose":
            return []
    return []


def _summary(restored: int, wanted: int, outcome: Outcome) -> Message:
    values = {"restored": restored, "wanted": wanted}
    if restored < wanted:
        return _("The drill proved a restore for only {restored} of {wanted} databases.", **values)
    if outcome is Outcome.FAIL:
        return _("The restores worked, but something else is wrong: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _("Every mapped database was restored; something needs attention.")
    return _("Every mapped database was restored and is the same as the original.")


def _facts(
    steps: Mapping[tuple[str, str], StepRecord],
    databases: Sequence[MappedDatabase],
    restored: Sequence[str],
) -> list[Fact]:
    drills = [steps.get(("drill", one.name)) for one in databases]
    times = [metric_of(one, "drill.rto_seconds") for one in drills]
    ages = [metric_of(one, "drill.rpo_seconds") for one in drills]
    return [
        Fact(
            label=_("Databases restored"),
            value=_("{made} of {wanted}", made=len(restored), wanted=len(databases)),
            status=Outcome.PASS if len(restored) == len(databases) else Outcome.FAIL,
        ),
        _slowest(_("Longest restore"), times, Outcome.FAIL),
        _slowest(_("Age of the newest restore point"), ages, Outcome.ATTENTION),
        Fact(
            label=_("Rows compared"),
            value=sum(one.data.get("rows", 0) for one in drills if one) if any(drills) else None,
            unit="rows",
        ),
        Fact(
            label=_("Erased records brought back"),
            **_brought_back(drills),
        ),
    ]


class _Judged(TypedDict, total=False):
    value: Message | int | None
    status: Outcome
    note: Message


def _brought_back(drills: Sequence[StepRecord | None]) -> _Judged:
    """Say how many erased records came back; with an empty ledger there was nothing to look for."""
    looked = [one.data for one in drills if one and "erasures" in one.data]
    if not looked or len(looked) < len(drills):
        return {"value": None}
    entries = sum(int(one["erasures"]) for one in looked)
    missed = sum(int(one.get("not_looked_for") or 0) for one in looked)
    # Rows with erased keys count where the records themselves are gone.
    came_back = sum(
        int(one.get("remaining") or 0) or sum((one.get("holding") or {}).values()) for one in looked
    )
    if not entries:
        return {
            "value": _("nothing to check"),
            "note": _("the erasure ledger of these databases is empty"),
        }
    if missed and not came_back:
        return {
            "value": None,
            "status": Outcome.FAIL,
            "note": _("{count} entries could not be looked for", count=missed),
        }
    return {
        "value": came_back,
        "status": Outcome.FAIL if came_back else Outcome.PASS,
        "note": _("{count} entries of the erasure ledger were looked for", count=entries - missed),
    }


def _slowest(label: Message, figures: Sequence[Metric | None], late: Outcome) -> Fact:
    known = [one for one in figures if one is not None and one.value is not None]
    if not known:
        return Fact(label=label, value=None)
    worst = max(known, key=lambda one: (one.value or 0) / (one.target or 1))
    within = worst.target is None or (worst.value or 0) <= worst.target
    return Fact(
        label=label,
        value=worst.value,
        unit="seconds",
        status=Outcome.PASS if within else late,
        note=_("target: at most {hours} h", hours=round((worst.target or 0) / 3600, 1)),
    )


def _database(
    steps: Mapping[tuple[str, str], StepRecord],
    database: MappedDatabase,
    history: Sequence[PastDrill],
) -> Section:
    refusals = steps.get(("refusals", database.name))
    drill = steps.get(("drill", database.name))
    data = drill.data if drill else {}
    refused = refusals.data.get("refused") if refusals else None
    checks: list[list[object]] = [
        [_("A copy with one flipped byte is refused"), _yes("flipped_byte", refused)],
        [_("A truncated copy is refused"), _yes("truncated", refused)],
        [_("A wrong key is refused"), _yes("wrong_key", refused)],
        [_("Tables whose content was compared"), data.get("compared")],
        [_("Rows restored"), data.get("rows")],
        [_("Foreign keys checked row by row"), data.get("foreign_keys")],
        [_("Left out of the restored copy"), _left_out(data)],
        [_("Newest record in the copy"), _newest(data)],
        [_("Entries of the erasure ledger"), data.get("erasures")],
        [_("Erased records that the copy held and that were erased again"), data.get("replayed")],
        [
            _("Masked records that the copy held in clear and that were masked again"),
            data.get("remasked"),
        ],
        [_("Erased or masked records still present afterwards"), data.get("remaining")],
        [_("Materialized views refreshed afterwards"), data.get("views_refreshed")],
        [
            _("Rows of other tables and views with keys of erased records"),
            sum(data["holding"].values()) if "holding" in data else None,
        ],
    ]
    blocks: list[Table | TrendChart] = [
        Table(
            caption=_("What was checked"),
            columns=[Column(label=_("Check")), Column(label=_("Result"), kind="text")],
            rows=checks,
        ),
        TrendChart(
            caption=_("Restore time of past drills"),
            unit="seconds",
            points=[
                TrendPoint(at=one.at, value=one.restore_seconds, status=one.outcome)
                for one in history
            ],
            target=Target(value=database.rto.total_seconds(), label=_("RTO")),
        ),
    ]
    return Section(
        heading=_(
            "{database}: restore point {point}",
            database=database.title,
            point=str(data.get("restore_point") or _none(steps, database.name)),
        ),
        blocks=blocks,
    )


def _none(steps: Mapping[tuple[str, str], StepRecord], database: str) -> str:
    chosen = steps.get(("choose", database))
    return str(chosen.data.get("restore_point", "—")) if chosen else "—"


def _yes(variant: str, refused: Sequence[str] | None) -> Message | None:
    """Say yes or no, and nothing when nobody tried."""
    if refused is None:
        return None
    return _("yes") if variant in refused else _("no")


def _left_out(data: Mapping[str, Any]) -> Message | str | None:
    names = data.get("left_out")
    if names is None:
        return None
    return ", ".join(names) if names else _("nothing")


def _newest(data: Mapping[str, object]) -> Message | datetime | None:
    newest = data.get("newest")
    if newest is None:
        return _("not looked at: the data map names no such column") if data else None
    return _("no record") if newest == "none" else datetime.fromisoformat(str(newest))


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
