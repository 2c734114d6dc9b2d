"""Store and read the results of quality checks.

The module also closes quarantine entries whose expectations were removed from the policy pack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    Subquery,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.expectations.check import MOST_NAMED
from include.messages import Message, _, listed
from include.policy.expectations import Expectation
from include.quality.watermark import Watermark
from include.quarantine import register
from include.schema.json_keys import MappedObject
from include.state.tables import evidence_ledger, quality_check
from include.workflow.run_context import RunContext

FULL_EVERY = timedelta(days=7)
"""Interval of full checks, which find changes that the change column does not show."""
_EARLY = timedelta(hours=12)  # a daily run may start a little earlier in the day
MOST_RUNS = 30  # number of runs in the trend
# Ids of expectations contain no spaces, so these names are never the id of an expectation.
_CLEAN, _ALL, _BEGUN = "no undeclared keys: ", "all records", "has begun"


@dataclass(frozen=True)
class RuleCheck:
    """A row of the check history: the result of one expectation in one run.

    Attributes:
        collection: name of the collection in the data map.
        rule: id of the expectation. Rows about a whole collection or a JSON column have a text with
            spaces instead, which cannot be an id.
        definition: digest of the definition of the expectation that was checked.
        whole: whether the check examined all records of the collection.
        rows: number of records to which the expectation applies; None if the expectation could not
            be checked.
        broken: number of records that break the expectation at the end of the run; None if the
            expectation could not be checked.
        outcome: outcome of the expectation.
        watermark: watermark of the collection, only in the row that `record_count_row` returns;
            None in all other rows.
    """

    collection: str
    rule: str
    definition: str
    whole: bool
    rows: int | None
    broken: int | None
    outcome: Outcome
    watermark: str | None = None


@dataclass(frozen=True)
class RunTotal:
    """A point of the trend chart: how many breaches a run counted in a database.

    A record that breaks two expectations counts as two breaches.

    Attributes:
        at: time of the run.
        broken: number of breaches; None if an expectation could not be checked.
    """

    at: datetime
    broken: int | None


def clean_object_row(mapped: MappedObject) -> RuleCheck:
    """Return the history row for a JSON column in which a check found no undeclared keys.

    Args:
        mapped: the JSON column, or an object inside it, with its declared keys.
    """
    rule = _CLEAN + mapped.field
    return RuleCheck(mapped.collection.name, rule, mapped.digest, False, None, 0, Outcome.PASS)


def record_count_row(
    collection: str, rows: int, watermark: Watermark | None, *, whole: bool
) -> RuleCheck:
    """Return the history row that stores the number of records and the watermark of a collection.

    Args:
        collection: name of the collection in the data map.
        rows: number of records in the collection that the newest full check counted; this may be
            the present check.
        watermark: the watermark; None if the next check must examine all records.
        whole: whether this check is a full check.
    """
    definition, value = (watermark.definition, watermark.value) if watermark else ("", None)
    return RuleCheck(collection, _ALL, definition, whole, rows, 0, Outcome.PASS, value)


def begin(conn: Connection, collection_run: register.CheckedCollection) -> int:
    """Record that a run is about to write quarantine entries of a collection.

    Args:
        conn: connection to the state database.
        collection_run: collection, run and time of the check.

    Returns:
        The sequence number of this check. It is greater than the number of every earlier check.
        Unlike a time, it does not depend on the system clock.
    """
    key = {**asdict(collection_run), "rule": _BEGUN}
    at = key.pop("at")
    conn.execute(delete(quality_check).where(*(quality_check.c[name] == key[name] for name in key)))
    new = insert(quality_check).values(
        **key,
        definition="",
        checked_at=at,
        whole=False,
        broken=None,
        outcome=str(Outcome.ATTENTION),
    )
    return int(conn.execute(new.returning(quality_check.c.number)).scalar_one())


def record(
    conn: Connection,
    checks: Sequence[RuleCheck],
    *,
    database: str,
    dag_id: str,
    run_id: str,
    at: datetime,
) -> None:
    """Store the results of a run. Results of an earlier attempt of the same run are replaced.

    Args:
        conn: connection to the state database.
        checks: results of the expectations, and the rows about whole collections and JSON columns.
        database: name of the database in the data map.
        dag_id: id of the workflow.
        run_id: id of the run.
        at: time of the check.
    """
    run_columns = {"dag_id": dag_id, "run_id": run_id, "database": database, "checked_at": at}
    is_own_run = [
        quality_check.c[key] == run_columns[key] for key in ("dag_id", "run_id", "database")
    ]
    conn.execute(delete(quality_check).where(*is_own_run, quality_check.c.rule != _BEGUN))
    conn.execute(
        update(quality_check).where(*is_own_run).values(broken=0, checked_at=at)
    )  # broken=0 in the row `_BEGUN` states that the run has ended
    if checks:
        conn.execute(
            insert(quality_check),
            [{**check.__dict__, "outcome": str(check.outcome), **run_columns} for check in checks],
        )


@dataclass(frozen=True)
class LastCheck:
    """The newest check of a collection whose evidence bundle is sealed.

    Attributes:
        watermark: value of the change column up to which the check has read the records.
        rows: for each expectation, the number of records to which it applied according to the
            newest full check.
        broken: for each expectation, the number of records that broke it at the end of the check.
        definitions: for each expectation, the digest of the definition that was checked.
        full_at: time of the newest full check.
    """

    watermark: Watermark
    rows: Mapping[str, int]
    broken: Mapping[str, int]
    definitions: Mapping[str, str]
    full_at: datetime

    @property
    def all_rows(self) -> int:
        """Return the number of records that the newest full check counted in the collection."""
        return self.rows[_ALL]

    def was_clean(self, mapped: MappedObject) -> bool:
        """Return whether this check found no undeclared keys in a JSON column.

        Args:
            mapped: the JSON column, or an object inside it, with its declared keys.
        """
        return self.definitions.get(_CLEAN + mapped.field) == mapped.digest


def last_check(
    conn: Connection,
    database: str,
    collection: str,
    expectations: Sequence[Expectation],
    now: datetime,
) -> LastCheck | Message:
    """Return the newest sealed check of a collection, or the reason why a full check is required.

    A check counts only if the bundle of its run is sealed, so that sealed bundles are evidence for
    all records up to the watermark. A full check is required in these cases, among others: no
    sealed run exists; an expectation is new, was changed or could not be checked; the newest full
    check is a week old; another run started after the newest sealed run and may have changed the
    quarantine register.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        collection: name of the collection in the data map.
        expectations: expectations of the collection.
        now: current time.
    """
    rows = _latest_sealed(conn, database, collection)
    if not rows:
        return _("no sealed evidence of an earlier check exists")
    if any(row.rule == _BEGUN and row.broken is None for row in rows):
        return _("the last check did not finish")
    definitions = {row.rule: row.definition for row in rows}
    broken = {row.rule: row.broken for row in rows}
    for rule in expectations:
        if definitions.get(rule.id) != rule.digest:
            return _("the expectation “{title}” is new or was changed", title=rule.message)
        if broken[rule.id] is None or broken[rule.id] > MOST_NAMED:
            return _(
                "the last check could not check the expectation “{title}”, or could not list all "
                "records that do not meet it",
                title=rule.message,
            )
    full_at = conn.scalar(
        _sealed(select(quality_check.c.checked_at))
        .where(
            quality_check.c.database == database,
            quality_check.c.collection == collection,
            quality_check.c.whole,
        )
        .order_by(evidence_ledger.c.seq.desc())
        .limit(1)
    )
    if full_at is None or now - full_at >= FULL_EVERY - _EARLY:
        return _("a full check is due every seven days")
    if now < full_at:
        return _("the system clock was set back since the last check")
    if _another_since(conn, database, collection, min(row.number for row in rows)):
        return _("after the last check with sealed evidence, another check started")
    (counted,) = [row for row in rows if row.rule == _ALL] or [None]
    if counted is None or counted.watermark is None:
        return _("the last check recorded no watermark")
    if not counted.rows:
        return _("the collection had no records at the last check")
    return LastCheck(
        Watermark.parse(counted.definition, counted.watermark),
        {row.rule: row.rows for row in rows},
        broken,
        definitions,
        full_at,
    )


def _another_since(conn: Connection, database: str, collection: str, number: int) -> bool:
    """Return whether another run has checked the collection since the newest sealed run began.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        collection: name of the collection in the data map.
        number: lowest sequence number in the rows of the newest sealed run.
    """
    last = _last_sealed(database, collection)
    other = exists().where(
        quality_check.c.database == database,
        quality_check.c.collection == collection,
        quality_check.c.number > number,
        tuple_(quality_check.c.dag_id, quality_check.c.run_id).not_in(select(last)),
    )
    return bool(conn.scalar(select(other)))


def last_count(conn: Connection, database: str, collection: str) -> tuple[int, datetime] | None:
    """Return the record count of a collection in its newest sealed check, and the time.

    Return None if there is no sealed check of the collection or if it stores no number.
    """
    last = conn.execute(
        _sealed(select(quality_check.c.rows, quality_check.c.checked_at))
        .where(
            quality_check.c.database == database,
            quality_check.c.collection == collection,
            quality_check.c.rule == _ALL,
        )
        .order_by(evidence_ledger.c.seq.desc())
        .limit(1)
    ).first()
    return None if last is None or last.rows is None else (last.rows, last.checked_at)


def trend(conn: Connection, database: str) -> list[RunTotal]:
    """Return the number of breaches in each of the newest runs, oldest run first.

    The result is for a trend chart and has at most `MOST_RUNS` items. Runs count even if their
    bundles are not sealed.
    """
    is_of_database = quality_check.c.database == database
    latest = (
        select(quality_check.c.checked_at)
        .where(is_of_database)
        .distinct()
        .order_by(quality_check.c.checked_at.desc())
        .limit(MOST_RUNS)
    )
    unchecked = func.count().filter(quality_check.c.broken.is_(None))
    query = (
        select(quality_check.c.checked_at, func.sum(quality_check.c.broken), unchecked)
        .where(is_of_database, quality_check.c.checked_at.in_(latest))
        .group_by(quality_check.c.checked_at)
        .order_by(quality_check.c.checked_at)
    )
    return [
        RunTotal(at, None if missing else int(broken))
        for at, broken, missing in conn.execute(query)
    ]


def _latest_sealed(conn: Connection, database: str, collection: str) -> Sequence[Any]:
    newest = _last_sealed(database, collection)
    same = and_(
        newest.c.dag_id == quality_check.c.dag_id, newest.c.run_id == quality_check.c.run_id
    )
    return conn.execute(
        select(quality_check)
        .join(newest, same)
        .where(quality_check.c.database == database, quality_check.c.collection == collection)
    ).all()


def _last_sealed(database: str, collection: str) -> Subquery:
    return (
        _sealed(select(quality_check.c.dag_id, quality_check.c.run_id))
        .where(quality_check.c.database == database, quality_check.c.collection == collection)
        # Ordered by number and not by time, because a clock may have been set back.
        .order_by(evidence_ledger.c.seq.desc())
        .limit(1)
        .subquery()
    )


def _sealed(query: Select[Any]) -> Select[Any]:
    same = and_(
        evidence_ledger.c.dag_id == quality_check.c.dag_id,
        evidence_ledger.c.run_id == quality_check.c.run_id,
    )
    return query.join(evidence_ledger, same)


def close_entries_of_removed_rules(
    findings: StepFindings,
    conn: Connection,
    collection_run: register.CheckedCollection,
    rules: Sequence[str],
) -> None:
    """Close the quarantine entries of removed expectations, and report how many were closed.

    A closed entry does not mean that its record was corrected.

    Args:
        findings: findings of the step.
        conn: connection to the state database, outside of a transaction.
        collection_run: collection, run and time of the check.
        rules: ids of the expectations that the policy pack has for the collection.
    """
    with conn.begin():
        closed = register.resolve_removed_rules(conn, collection_run, rules)
    if closed:
        findings.warn(
            "quality.rule_dropped",
            _(
                "{count} entries of the quarantine register were closed, because the policy "
                "pack no longer has the expectations that the records did not meet. The "
                "records may still be incorrect.",
                count=sum(closed.values()),
            ),
            _("Check that the expectations were removed on purpose."),
            subject=f"{collection_run.database}.{collection_run.collection}",
            for_engineers=_(
                "The removed rules are {rules}.",
                rules=listed([f"`{rule}`" for rule in sorted(closed)]),
            ),
        )


def close_entries_without_suite(
    findings: StepFindings,
    conn: Connection,
    run: RunContext[None],
    at: datetime,
    database: str,
    collections: set[str],
) -> None:
    """Close the quarantine entries of collections without expectations in the policy pack.

    For each of these collections, the function also adds a row without results to the check
    history. If expectations are added later, the first check of the collection is therefore a full
    check.

    Args:
        findings: findings of the step.
        conn: connection to the state database, outside of a transaction.
        run: context of the run.
        at: time of the check.
        database: name of the database in the data map.
        collections: collections of the database for which the policy pack has expectations.
    """
    with conn.begin():
        dropped_collections = register.other_collections_with_entries(
            conn, database, run.run.dag_id, collections
        )
    for name in dropped_collections:
        collection_run = register.CheckedCollection(
            database, name, run.run.dag_id, run.run.run_id, at
        )
        with conn.begin():
            begin(conn, collection_run)
        close_entries_of_removed_rules(findings, conn, collection_run, ())
