"""The conclusion and the report of a run of `check_quality`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.evidence.model import Finding, Metric, Outcome, StepRecord, attention_finding
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import MappedDatabase
from include.policy.expectations import Expectation, Suite
from include.policy.period import Period
from include.quality import history
from include.quality.check import CHECK, CLAUSE, QualityCheck
from include.quality.collection import CheckedCollection, RuleFigures, Scope
from include.quality.history import RunTotal
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
from include.workflow.databases import select_databases
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords


def rows_note(collections: Sequence[tuple[CheckedCollection, Message]]) -> Message:
    """Return the note below a key figure, such as "of 100 records".

    The note states the sum of the record counts of all collections. It names the collections whose
    records could not be counted.

    Args:
        collections: results of the collections, with the title of each collection.
    """
    count = sum(collection.rows or 0 for collection, _title in collections)
    if unknown := [title for collection, title in collections if collection.rows is None]:
        names = listed(unknown)
        return _(
            "of {count} records; the records of these collections could not be counted: {names}",
            count=count,
            names=names,
        )
    if all(collection.whole for collection, _title in collections):
        return _("of {count} records", count=count)
    return _("of {count} records that the last full check counted", count=count)


def examined_title(collection: CheckedCollection, name: Message) -> Message:
    """Return the title of a collection's table in the report.

    The title states how many records were examined, and why a full check examined all of them.

    Args:
        collection: result of the collection.
        name: title of the collection.
    """
    rows, examined = collection.rows, collection.looked_at
    if rows is None or (collection.whole and rows and not examined):
        return _("{collection}: not examined", collection=name)
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
        "{collection}: incremental check of {examined} changed records; {rows} records at the "
        "last full check",
        collection=name,
        examined=examined,
        rows=rows,
    )


def unseen_changes(collection: CheckedCollection, title: Message) -> list[Block]:
    """Return report blocks that list which changes an incremental check cannot detect.

    Return an empty list for a full check.

    Args:
        collection: result of the collection.
        title: title of the collection.
    """
    incremental = collection.incremental
    if incremental is None:
        return []
    column, since = incremental.column, incremental.since
    items = [
        _("records that were changed or loaded without a new value in the change column"),
        _(
            "records that were loaded late, with a value below {since} in the change column",
            since=verbatim(since),
        ),
        _(
            "records in a partition that was attached to the table, or that was emptied and "
            "loaded again"
        ),
        _("broken records that were deleted: the quarantine register keeps their entries"),
        _(
            "records whose primary key was changed: the quarantine register keeps the entry with "
            "the old key"
        ),
        _(
            "records that break an expectation because of a change in another collection, such "
            "as a withdrawn consent, and that did not change themselves"
        ),
        _(
            "records that no longer meet an expectation because time has passed, such as an "
            "overdue review"
        ),
    ]
    if any(rule.examined is Scope.LAST_FULL for rule in collection.rules):
        items.append(
            _(
                "new breaches of expectations that compare several records with each other or "
                "count records: the report shows the result of the last full check"
            )
        )
    if not incremental.sees_open_transactions:
        items.append(_late_commits(incremental.margin))
    elif not incremental.has_timezone:
        items.append(
            _(
                "records that were written in a transaction that stayed open longer than the "
                "margin for late arrivals ({margin:duration}), if the application writes the "
                "change column in a timezone other than the server's or UTC",
                margin=_seconds(incremental.margin),
            )
        )
    return [
        Paragraph(
            text=_(
                "This check of {collection} was incremental: it examined changed records only. "
                "The last full check was on {full}; the next full check is due on {due}. Until "
                "then, checks do not detect:",
                collection=title,
                full=incremental.full_at.date(),
                due=incremental.full_due.date(),
            )
        ),
        Steps(items=items),
        Code(
            lines=[f"{column} >= {since}", f"{column} IS NULL"],
            caption=_("For engineers: condition of the examined records"),
        ),
    ]


def _late_commits(margin: str) -> Message:
    if margin.isdecimal():  # numbers cannot be compared with the start of a transaction
        return _(
            "records that were committed after the last check and whose number in the change "
            "column is more than {margin} below the greatest number that the last check found",
            margin=verbatim(margin),
        )
    return _(
        "records that were written in a transaction that stayed open longer than the margin "
        "for late arrivals ({margin:duration}): the database does not show open transactions "
        "to this check",
        margin=_seconds(margin),
    )


def _seconds(period: str) -> float:
    return Period.parse(period).span.total_seconds()


TITLE = _("Quality check")
MOST_PARTS = 10  # departments in a chart
# name of each indicator -> metric of the databases that it adds up
_INDICATORS = {
    "expectations_not_met": "quality.rules_broken",
    "values_outside_purposes": "quality.over_collected",
    "undeclared_tables_and_columns": "quality.undeclared",
}
_EXAMINED = {
    Scope.ALL: _("all records"),
    Scope.CHANGED: _("changed records"),
    Scope.LAST_FULL: _("records as of the last full check"),
}


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Return the conclusion of a run from the step records of the requested databases.

    The outcome is "failed" if the step record of a requested database is missing, or if no database
    was requested. Mapped databases that the run did not check are reported.
    """
    databases, left_out = select_databases(
        run.pack.databases.values(), run.requested_databases, "quality.left_out", CLAUSE
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
    findings += [*_databases_without_suite(databases, suites), *left_out]
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
            steps,
            [
                (collection, database.title_of(collection.collection))
                for database in databases
                if database.name in checks
                for collection in checks[database.name].collections
            ],
        ),
        sections=[
            *(
                _database(
                    database,
                    checks.get(database.name),
                    suites[database.name],
                    trends[database.name],
                )
                for database in databases
            ),
            _meaning(),
        ],
    )


def _databases_without_suite(
    databases: Sequence[MappedDatabase], suites: Mapping[str, Sequence[Suite]]
) -> list[Finding]:
    return [
        attention_finding(
            code="quality.nothing_expected",
            subject=database.name,
            message=_(
                "The policy pack has no expectations for the records of {name}.",
                name=database.title,
            ),
            action=_("Add expectations for the records to the policy pack."),
            clause=CLAUSE,
            for_engineers=_("Expectations are in the folder `quality` of the policy pack."),
        )
        for database in databases
        if all(suite.incoming for suite in suites[database.name])
    ]


def _figures(steps: Sequence[StepRecord | None], name: str) -> list[float]:
    """Return the values of a metric from those steps that measured it.

    Args:
        steps: step record of each database; None if it is missing.
        name: name of the metric.
    """
    metrics = [metric_of(step, name) for step in steps]
    return [metric.value for metric in metrics if metric and metric.value is not None]


def _sum(steps: Sequence[StepRecord | None], name: str) -> float | None:
    """Return the sum of a metric over all steps; None if one of the steps did not measure it.

    Args:
        steps: step record of each database; None if it is missing.
        name: name of the metric.
    """
    figures = _figures(steps, name)
    return sum(figures) if steps and len(figures) == len(steps) else None


def _indicator(
    name: str, figure: str, steps: Sequence[StepRecord | None], *, all_asked: bool
) -> Metric:
    """Return the indicator of a control: the sum of a metric over the checked databases.

    A sum of zero counts only if the metric was measured in every mapped database; otherwise the
    value is None. A sum above zero always counts.

    Args:
        name: name of the indicator.
        figure: name of the metric.
        steps: step record of each requested database; None if it is missing.
        all_asked: whether the run checks all mapped databases.
    """
    total = sum(_figures(steps, figure))
    is_complete = all_asked and _sum(steps, figure) is not None
    return Metric(name=name, value=total if total or is_complete else None, unit="1")


def _summary(outcome: Outcome, *, missing: bool) -> Message:
    if missing:
        return _("Some databases were not checked.")
    if outcome is Outcome.FAIL:
        return _("Some records do not meet the expectations of the policy: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _("The records meet all required expectations; some findings need attention.")
    return _("The records meet the expectations of the policy.")


def _facts(
    steps: Sequence[StepRecord | None],
    collections: Sequence[tuple[CheckedCollection, Message]],
) -> list[Fact]:
    unmet, unchecked = (
        _sum(steps, "quality.rules_broken"),
        _sum(steps, "quality.rules_unchecked"),
    )
    return [
        Fact(
            label=_("Required expectations not met"),
            value=unmet,
            status=must_be_zero(unmet),
            note=_(
                "of {count} expectations that have to be met",
                count=int(_sum(steps, "quality.rules_required") or 0),
            ),
        ),
        Fact(
            label=_("Records examined"),
            value=sum(collection.looked_at for collection, _title in collections)
            if collections
            else None,
            unit="rows",
            note=rows_note(collections),
        ),
        Fact(
            label=_("Breaches"),
            value=_sum(steps, "quality.broken"),
            note=_("one record may break several expectations"),
        ),
        Fact(
            label=_("Corrected or deleted records"),
            value=sum(collection.resolved for collection, _title in collections)
            if collections
            else None,
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
    trend: Sequence[RunTotal],
) -> Section:
    heading = _("Database {name}", name=database.title)
    if check is None:
        return Section(heading=heading, blocks=[Paragraph(text=_("The database was not checked."))])
    rules = {(suite.collection, rule.id): rule for suite in suites for rule in suite.expectations}
    blocks: list[Block] = []
    if left := sorted(set(database.collections) - {suite.collection for suite in suites}):
        blocks.append(
            Paragraph(
                text=_(
                    "The policy pack has no expectations for {count} of {total} collections, so "
                    "their records were not checked: {names}.",
                    count=len(left),
                    total=len(database.collections),
                    names=listed(map(database.title_of, left)),
                )
            )
        )
    incoming = [suite.collection for suite in suites if suite.incoming]
    if incoming:
        blocks.append(
            Paragraph(
                text=_(
                    "The records of these collections are checked by the workflow “Review before "
                    "storing”: {names}.",
                    names=listed(database.title_of(name) for name in dict.fromkeys(incoming)),
                )
            )
        )
    for collection in check.collections:
        title = database.title_of(collection.collection)
        blocks.append(_rules_table(collection, title, rules))
        if broken := [figures.rule for figures in collection.rules if figures.broken]:
            blocks.append(
                Code(
                    caption=_(
                        "For engineers: lists of the broken records in the quarantine register"
                    ),
                    lines=[f"./parcelseal quarantine list --rule {rule}" for rule in broken],
                )
            )
        blocks += unseen_changes(collection, title)
        if collection.parts:
            blocks.append(_parts_chart(collection, title))
    blocks.append(
        TrendChart(
            caption=_("Breaches in {name} over the last checks", name=database.title),
            points=[TrendPoint(at=past.at, value=past.broken) for past in trend],
        )
    )
    return Section(heading=heading, blocks=blocks)


def _rules_table(
    collection: CheckedCollection, title: Message, rules: Mapping[tuple[str, str], Expectation]
) -> Table:
    results = [
        (figures, rules.get((collection.collection, figures.rule))) for figures in collection.rules
    ]
    return table_of(
        examined_title(collection, title),
        results,
        [
            (
                _("Expectation"),
                "text",
                lambda row: row[1].message if row[1] else verbatim(row[0].rule),
            ),
            (
                _("Mandatory"),
                "text",
                lambda row: row[1].severity == "fail" if row[1] else "",
            ),
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


def _parts_chart(collection: CheckedCollection, title: Message) -> BarChart:
    largest, rest = collection.parts[:MOST_PARTS], collection.parts[MOST_PARTS:]
    return BarChart(
        caption=_("Broken records of {collection} by department", collection=title),
        category=_("Department"),
        unit="rows",
        bars=[
            *(Bar(label=name if name else _("none"), value=count) for name, count in largest),
            *(
                [Bar(label=_("other departments"), value=sum(count for _n, count in rest))]
                if rest
                else []
            ),
        ],
    )


def _meaning() -> Section:
    return Section(
        heading=_("Meaning of the results"),
        blocks=[
            Steps(
                items=[
                    _(
                        "Every expectation comes from the policy pack. An expectation is met "
                        "if the number of records that break it does not exceed the number "
                        "that it tolerates."
                    ),
                    _(
                        "The quarantine register lists broken records by their key, never by "
                        "their content, until a check finds that they meet the expectation."
                    ),
                    _(
                        "A full check examines all records. It takes place at least every "
                        "seven days. Between full checks, incremental checks examine the "
                        "changed records only, which they recognise by the change column that "
                        "the policy pack names. A broken record counts as broken until a check "
                        "examines it again. A collection without a change column is always "
                        "checked in full."
                    ),
                ]
            )
        ],
    )
