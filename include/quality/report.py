"""What a run of `check_quality` adds up to, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import Message, _, verbatim
from include.policy.datamap import MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality.check import CLAUSE, STEP
from include.quality.history import Trend
from include.quality.report_scope import examined, not_seen, of_rows
from include.reports.conclusion import (
    Conclusion,
    by_step,
    metric_of,
    missing_record,
    not_asked_for,
    worst,
)
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Column,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    TrendChart,
    TrendPoint,
)

TITLE = _("Quality check")
MOST_PARTS = 10  # departments in a chart
# control indicator -> the figure of a database that it adds up
_INDICATORS = {
    "expectations_not_met": "quality.rules_broken",
    "values_outside_purposes": "quality.over_collected",
    "undeclared_tables_and_columns": "quality.undeclared",
}
_EXAMINED = {
    "all": _("all records"),
    "changed": _("changed records"),
    "last_full": _("by the last full check"),
}


def conclude(
    records: Sequence[StepRecord],
    databases: Sequence[MappedDatabase],
    suites: Mapping[str, Sequence[Suite]],
    trends: Mapping[str, Sequence[Trend]],
    asked: Sequence[str],
) -> Conclusion:
    """Judge a run: every suite of every mapped database was checked.

    Args:
        records: what the steps left; one that is missing fails.
        databases: all that the data map names.
        suites: of each database; those of incoming collections are checked elsewhere.
        trends: past runs by database, this one included.
        asked: names the run was asked for; the rest is noted, so that nobody takes it for checked.
    """
    left_out = [one for one in databases if one.name not in asked]
    databases = [one for one in databases if one.name in asked]
    steps = by_step(records)
    checked = [steps.get((STEP, one.name)) for one in databases]
    findings = [finding for record in records for finding in record.findings]
    findings += [
        missing_record(_("The check"), one.name, "quality.missing", CLAUSE)
        for one, record in zip(databases, checked, strict=True)
        if record is None
    ]
    findings += _nothing_expected(databases, suites)
    findings += [not_asked_for(one.name, "quality.left_out", CLAUSE) for one in left_out]
    outcome = worst(records, findings) if databases else Outcome.FAIL
    return Conclusion(
        title=TITLE,
        summary=_summary(outcome, any(record is None for record in checked)),
        outcome=outcome,
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            *(
                _indicator(name, figure, checked, all_asked=not left_out)
                for name, figure in _INDICATORS.items()
            ),
        ],
        facts=_facts(checked),
        sections=[
            *(
                _database(one, record, suites.get(one.name, ()), trends.get(one.name, ()))
                for one, record in zip(databases, checked, strict=True)
            ),
            _meaning(),
        ],
    )


def _nothing_expected(
    databases: Sequence[MappedDatabase], suites: Mapping[str, Sequence[Suite]]
) -> list[Finding]:
    return [
        Finding(
            code="quality.nothing_expected",
            severity=Outcome.ATTENTION,
            subject=one.name,
            message=_("The policy pack expects nothing of the records of {name}.", name=one.title),
            action=_("Write expectations under quality/ in the policy pack."),
            clause=CLAUSE,
        )
        for one in databases
        if all(suite.incoming for suite in suites.get(one.name, ()))
    ]


def _added_up(name: str, figure: str, checked: Sequence[StepRecord | None]) -> Metric:
    """An indicator over all databases; None when one of them was not measured."""
    found = [metric_of(one, figure) for one in checked]
    values = [one.value for one in found if one is not None and one.value is not None]
    whole = bool(checked) and len(values) == len(checked)
    return Metric(name=name, value=sum(values) if whole else None, unit="1")


def _indicator(
    name: str, figure: str, checked: Sequence[StepRecord | None], *, all_asked: bool
) -> Metric:
    """A control's figure: what is bad is bad, but nothing is good that was not looked at."""
    found = _added_up(name, figure, checked)
    known = [one for one in (metric_of(record, figure) for record in checked) if one and one.value]
    if found.value is None and known:
        return found.model_copy(update={"value": sum(one.value or 0 for one in known)})
    return found if all_asked or found.value else found.model_copy(update={"value": None})


def _summary(outcome: Outcome, missing: bool) -> Message:
    if missing:
        return _("Not every database was checked.")
    if outcome is Outcome.FAIL:
        return _("Records are not as the policy expects them: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _("Records are as the policy requires; something needs attention.")
    return _("Records are as the policy expects them.")


def _sum(checked: Sequence[StepRecord | None], name: str) -> float | None:
    return _added_up(name, name, checked).value


def _collections(checked: Sequence[StepRecord | None]) -> list[dict[str, Any]]:
    return [one for record in checked if record for one in record.data.get("collections", [])]


def _facts(checked: Sequence[StepRecord | None]) -> list[Fact]:
    collections = _collections(checked)
    unmet, unchecked = (
        _sum(checked, "quality.rules_broken"),
        _sum(checked, "quality.rules_unchecked"),
    )
    return [
        Fact(
            label=_("Required expectations that are not met"),
            value=unmet,
            status=None if unmet is None else Outcome.FAIL if unmet else Outcome.PASS,
            note=_("of {count}", count=int(_sum(checked, "quality.rules_required") or 0)),
        ),
        Fact(
            label=_("Records looked at"),
            value=sum(one["looked_at"] for one in collections) if collections else None,
            unit="rows",
            note=of_rows(collections),
        ),
        Fact(
            label=_("Breaches"),
            value=_sum(checked, "quality.broken"),
            note=_("one record may break several rules"),
        ),
        Fact(
            label=_("Found good again, or gone"),
            value=sum(one["resolved"] for one in collections) if collections else None,
            unit="rows",
        ),
        Fact(
            label=_("Expectations that could not be checked"),
            value=unchecked,
            status=None if unchecked is None else Outcome.FAIL if unchecked else Outcome.PASS,
        ),
    ]


def _database(
    database: MappedDatabase,
    record: StepRecord | None,
    suites: Sequence[Suite],
    trend: Sequence[Trend],
) -> Section:
    heading = _("Database {name}", name=database.title)
    if record is None or "collections" not in record.data:
        return Section(heading=heading, blocks=[Paragraph(text=_("It was not checked."))])
    rules = {(one.collection, rule.id): rule for one in suites for rule in one.expectations}
    blocks: list[Block] = []
    if left := sorted(set(database.collections) - {one.collection for one in suites}):
        blocks.append(
            Paragraph(
                text=_(
                    "The policy pack expects nothing of the records of {count} of {all} "
                    "collections; they were not looked at here: {names}.",
                    count=len(left),
                    all=len(database.collections),
                    names=", ".join(left),
                )
            )
        )
    for one in record.data["collections"]:
        blocks.append(_rules_table(one, rules))
        blocks += not_seen(one)
        if one["parts"]:
            blocks.append(_parts_chart(one))
    blocks.append(
        TrendChart(
            caption=_("Breaches in {name} over the last checks", name=database.title),
            points=[TrendPoint(at=one.at, value=one.broken) for one in trend],
        )
    )
    return Section(heading=heading, blocks=blocks)


def _rules_table(one: dict[str, Any], rules: Mapping[tuple[str, str], Expectation]) -> Table:
    found = [(rule, rules.get((one["collection"], rule["rule"]))) for rule in one["rules"]]
    looked = examined(one)
    return Table(
        caption=looked,
        columns=[
            Column(label=_("Expectation")),
            Column(label=_("Rule"), kind="code"),
            Column(label=_("Clause")),
            Column(label=_("Examined")),
            Column(label=_("Records"), kind="number"),
            Column(label=_("Broken"), kind="number"),
            Column(label=_("Share"), kind="percent"),
            Column(label=_("Tolerated"), kind="percent"),
            Column(label=_("Outcome"), kind="outcome"),
        ],
        rows=[
            [
                rule.message if rule else verbatim(result["rule"]),
                result["rule"],
                rule.clause if rule else "",
                _EXAMINED.get(result.get("examined", ""), ""),
                result["rows"],
                result["broken"],
                _share(result),
                float(1 - rule.mostly) if rule else None,
                Outcome(result["outcome"]),
            ]
            for result, rule in found
        ],
    )


def _share(result: dict[str, Any]) -> float | None:
    if result["broken"] is None or result["rows"] is None:
        return None
    return result["broken"] / result["rows"] if result["rows"] else 0.0


def _parts_chart(one: dict[str, Any]) -> BarChart:
    shown, rest = one["parts"][:MOST_PARTS], one["parts"][MOST_PARTS:]
    return BarChart(
        caption=_("Broken records of {collection} by department", collection=one["collection"]),
        category=_("Department"),
        unit="rows",
        bars=[
            *(Bar(label=name if name else _("none"), value=count) for name, count in shown),
            *([Bar(label=_("others"), value=sum(count for _n, count in rest))] if rest else []),
        ],
    )


def _meaning() -> Section:
    return Section(
        heading=_("What this means"),
        blocks=[
            Steps(
                items=[
                    _(
                        "Every expectation comes from the policy pack. It is met when no more of "
                        "the records that it is about break it than it tolerates."
                    ),
                    _(
                        "Broken records stand in the quarantine register by their key, never by "
                        "their content, until a check finds them good."
                    ),
                    _(
                        "A full check examines all records, at least every seventh day. Between "
                        "two full checks, an incremental check examines the records that changed, "
                        "by a change column that the policy pack names. Records that broke an "
                        "expectation stay broken until a check examines them again. A collection "
                        "without a change column is examined in full every time."
                    ),
                ]
            )
        ],
    )
