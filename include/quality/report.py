"""Conclude a run of `check_quality`, and write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.evidence.model import Finding, Metric, Outcome, StepRecord, attention_finding
from include.messages import Message, _, verbatim
from include.policy.datamap import MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.quality import history
from include.quality.check import CHECK, CLAUSE, QualityCheck
from include.quality.collection import CheckedCollection, RuleFigures, Scope
from include.quality.history import Trend
from include.reports.conclusion import Conclusion, metric_of, missing_record
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Code,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    TrendChart,
    TrendPoint,
    must_be_zero,
    table_of,
)
from include.workflow.databases import requested_databases
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords


def of_rows(collections: Sequence[CheckedCollection]) -> Message:
    """Return the number of records of all collections."""
    count = sum(collection.rows or 0 for collection in collections)
    if unknown := [collection.collection for collection in collections if collection.rows is None]:
        names = ", ".join(unknown)
        return _("of {count}; these were not counted: {names}", count=count, names=names)
    if all(collection.whole for collection in collections):
        return _("of {count}", count=count)
    return _("of {count} by the last full check", count=count)


def examined(collection: CheckedCollection) -> Message:
    """Return how many records were examined. Runs of earlier versions recorded less."""
    name, rows, looked = collection.collection, collection.rows, collection.looked_at
    if rows is None or (collection.whole and rows and not looked):
        return _("{collection}: it was not examined", collection=name)
    if collection.whole and collection.whole_because is None:
        return _("{collection}: all {rows} records", collection=name, rows=rows)
    if collection.whole:
        return _(
            "{collection}: all {rows} records, because {reason}",
            collection=name,
            rows=rows,
            reason=collection.whole_because,
        )
    return _(
        "{collection}: incremental check of {looked} changed records, of {rows} by the last full "
        "check",
        collection=name,
        looked=looked,
        rows=rows,
    )


def not_seen(collection: CheckedCollection) -> list[Block]:
    """Return the changes that an incremental check cannot see; nothing after a full check."""
    incremental = collection.incremental
    if incremental is None:
        return []
    column, since = incremental.column, incremental.since
    items = [
        _("records that were changed or loaded without a new value in the change column"),
        _(
            "records that were loaded late, with a value below {since} in that column",
            since=verbatim(since),
        ),
        _("records of a partition that was emptied and loaded again, or attached"),
        _("records that were deleted: their entries stay in the quarantine register"),
        _("that a primary key changed: the entry of the old key stays in the quarantine register"),
        _(
            "changes in other collections, such as a consent that was withdrawn, unless the record "
            "itself changed too"
        ),
        _("records that break an expectation because time went on, such as an overdue review"),
    ]
    if any(rule.examined is Scope.LAST_FULL for rule in collection.rules):
        items.append(
            _(
                "new breaches of expectations that compare records with each other or count them: "
                "their figures are those of the last full check"
            )
        )
    if not incremental.sees_open_transactions:
        items.append(_late(incremental.margin))
    elif not incremental.has_timezone:
        items.append(
            _(
                "records whose transaction was open for longer than the margin for late arrivals "
                "({margin}), if the application writes the column in another timezone than the "
                "server's or UTC",
                margin=verbatim(incremental.margin),
            )
        )
    return [
        Paragraph(
            text=_(
                "This check of {collection} was incremental: it examined changed records. The last "
                "full check was on {full}; the next one is due on {due}. Until then no check sees:",
                collection=collection.collection,
                full=incremental.full_at.date(),
                due=incremental.full_due.date(),
            )
        ),
        Steps(items=items),
        Code(
            lines=[f"{column} >= {since}", f"{column} IS NULL"],
            caption=_("For engineers: the records that were examined"),
        ),
    ]


def _late(margin: str) -> Message:
    if margin.isdecimal():  # the column holds numbers, of which no transaction's start is known
        return _(
            "records that were committed after the last check and whose number is more than "
            "{margin} below the greatest one that it read",
            margin=verbatim(margin),
        )
    return _(
        "records whose transaction was open for longer than the margin for late arrivals "
        "({margin}): the database does not show open transactions to this check",
        margin=verbatim(margin),
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
    Scope.ALL: _("all records"),
    Scope.CHANGED: _("changed records"),
    Scope.LAST_FULL: _("by the last full check"),
}


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Judge a run: every suite of every wanted database was checked.

    A record that is missing fails. Mapped databases that the run was not asked for are reported.
    """
    databases, left_out = requested_databases(
        run.pack.databases.values(), run.wanted_databases, "quality.left_out", CLAUSE
    )
    steps = [records.find(CHECK.name, database.name) for database in databases]
    suites = {
        database.name: (
            *run.pack.suites_of(database.name),
            *run.pack.suites_of(database.name, incoming=True),
        )
        for database in databases
    }
    findings = [
        missing_record(_("The check"), database.name, "quality.missing", CLAUSE)
        for database, step in zip(databases, steps, strict=True)
        if step is None
    ]
    findings += [*_nothing_expected(databases, suites), *left_out]
    outcome = records.outcome(findings) if databases else Outcome.FAIL
    checks = records.results(CHECK)
    with run.state.connect() as conn:
        trends = {database.name: history.trend(conn, database.name) for database in databases}
    return records.conclude(
        TITLE,
        _summary(outcome, missing=None in steps),
        outcome=outcome,
        findings=findings,
        metrics=[
            _indicator(name, figure, steps, all_asked=not left_out)
            for name, figure in _INDICATORS.items()
        ],
        facts=_facts(
            steps, [collection for check in checks.values() for collection in check.collections]
        ),
        sections=[
            *(
                _database(each, checks.get(each.name), suites[each.name], trends[each.name])
                for each in databases
            ),
            _meaning(),
        ],
    )


def _nothing_expected(
    databases: Sequence[MappedDatabase], suites: Mapping[str, Sequence[Suite]]
) -> list[Finding]:
    return [
        attention_finding(
            code="quality.nothing_expected",
            subject=database.name,
            message=_(
                "The policy pack expects nothing of the records of {name}.", name=database.title
            ),
            action=_("Write expectations under quality/ in the policy pack."),
            clause=CLAUSE,
        )
        for database in databases
        if all(suite.incoming for suite in suites[database.name])
    ]


def _figures(steps: Sequence[StepRecord | None], name: str) -> list[float]:
    """Return a figure of all databases for which it was measured."""
    metrics = [metric_of(step, name) for step in steps]
    return [metric.value for metric in metrics if metric and metric.value is not None]


def _sum(steps: Sequence[StepRecord | None], name: str) -> float | None:
    """Return the sum of a figure; None if it was not measured for each database."""
    figures = _figures(steps, name)
    return sum(figures) if steps and len(figures) == len(steps) else None


def _indicator(
    name: str, figure: str, steps: Sequence[StepRecord | None], *, all_asked: bool
) -> Metric:
    """Return a control's figure; zero counts only if all databases were measured."""
    total = sum(_figures(steps, figure))
    is_complete = all_asked and _sum(steps, figure) is not None
    return Metric(name=name, value=total if total or is_complete else None, unit="1")


def _summary(outcome: Outcome, *, missing: bool) -> Message:
    if missing:
        return _("Not every database was checked.")
    if outcome is Outcome.FAIL:
        return _("Records are not as the policy expects them: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _("Records are as the policy requires; something needs attention.")
    return _("Records are as the policy expects them.")


def _facts(
    steps: Sequence[StepRecord | None], collections: Sequence[CheckedCollection]
) -> list[Fact]:
    unmet, unchecked = (
        _sum(steps, "quality.rules_broken"),
        _sum(steps, "quality.rules_unchecked"),
    )
    return [
        Fact(
            label=_("Required expectations that are not met"),
            value=unmet,
            status=must_be_zero(unmet),
            note=_("of {count}", count=int(_sum(steps, "quality.rules_required") or 0)),
        ),
        Fact(
            label=_("Records looked at"),
            value=sum(each.looked_at for each in collections) if collections else None,
            unit="rows",
            note=of_rows(collections),
        ),
        Fact(
            label=_("Breaches"),
            value=_sum(steps, "quality.broken"),
            note=_("one record may break several rules"),
        ),
        Fact(
            label=_("Found good again, or gone"),
            value=sum(each.resolved for each in collections) if collections else None,
            unit="rows",
        ),
        Fact(
            label=_("Expectations that could not be checked"),
            value=unchecked,
            status=must_be_zero(unchecked),
        ),
    ]


def _database(
    database: MappedDatabase,
    check: QualityCheck | None,
    suites: Sequence[Suite],
    trend: Sequence[Trend],
) -> Section:
    heading = _("Database {name}", name=database.title)
    if check is None:
        return Section(heading=heading, blocks=[Paragraph(text=_("It was not checked."))])
    rules = {(suite.collection, rule.id): rule for suite in suites for rule in suite.expectations}
    blocks: list[Block] = []
    if left := sorted(set(database.collections) - {suite.collection for suite in suites}):
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
    for collection in check.collections:
        blocks.append(_rules_table(collection, rules))
        blocks += not_seen(collection)
        if collection.parts:
            blocks.append(_parts_chart(collection))
    blocks.append(
        TrendChart(
            caption=_("Breaches in {name} over the last checks", name=database.title),
            points=[TrendPoint(at=past.at, value=past.broken) for past in trend],
        )
    )
    return Section(heading=heading, blocks=blocks)


def _rules_table(
    collection: CheckedCollection, rules: Mapping[tuple[str, str], Expectation]
) -> Table:
    results = [(each, rules.get((collection.collection, each.rule))) for each in collection.rules]
    return table_of(
        examined(collection),
        results,
        [
            (
                _("Expectation"),
                "text",
                lambda row: row[1].message if row[1] else verbatim(row[0].rule),
            ),
            (_("Rule"), "code", lambda row: row[0].rule),
            (_("Clause"), "text", lambda row: row[1].clause if row[1] else ""),
            (
                _("Examined"),
                "text",
                lambda row: _EXAMINED[row[0].examined] if row[0].examined else "",
            ),
            (_("Records"), "number", lambda row: row[0].rows),
            (_("Broken"), "number", lambda row: row[0].broken),
            (_("Share"), "percent", lambda row: _share(row[0])),
            (_("Tolerated"), "percent", lambda row: float(1 - row[1].mostly) if row[1] else None),
            (_("Outcome"), "outcome", lambda row: row[0].outcome),
        ],
    )


def _share(result: RuleFigures) -> float | None:
    if result.broken is None or result.rows is None:
        return None
    return result.broken / result.rows if result.rows else 0.0


def _parts_chart(collection: CheckedCollection) -> BarChart:
    shown, rest = collection.parts[:MOST_PARTS], collection.parts[MOST_PARTS:]
    return BarChart(
        caption=_("Broken records of {collection} by department", collection=collection.collection),
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
