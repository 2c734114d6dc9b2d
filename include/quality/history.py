"""Results of earlier checks, and the closing of entries whose rules were dropped from the pack."""

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
from include.messages import Message, _
from include.policy.expectations import Expectation
from include.quality.watermark import Watermark
from include.quarantine import register
from include.schema.json_keys import JsonPlace
from include.state.tables import evidence_ledger, quality_check
from include.workflow.run_context import RunContext

FULL_EVERY = timedelta(days=7)
"""A full check finds changes that the change column does not show."""
_EARLY = timedelta(hours=12)  # a daily run may begin a little earlier than a week before
MOST_RUNS = 30  # of the trend
# No expectation has such ids: theirs have no spaces.
_CLEAN, _ALL, _BEGUN = "no undeclared keys: ", "all records", "has begun"


@dataclass(frozen=True)
class RuleCheck:
    """One rule in one run.

    Attributes:
        collection: of the data map.
        rule: id of the expectation.
        definition: digest of what was checked.
        whole: the check examined all records of the collection.
        rows: number of records to which the rule applies; None if it was not checked.
        broken: number of these records that break the rule, after the run.
        outcome: outcome of the rule.
        watermark: watermark of the collection, only in the row with its number of records.
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
class Trend:
    """All rules of a database in one run; None when one of them could not be checked."""

    at: datetime
    broken: int | None


def clean_place(place: JsonPlace) -> RuleCheck:
    """Return the record of a place in a JSON column that has no undeclared keys."""
    rule = _CLEAN + place.field
    return RuleCheck(place.collection.name, rule, place.digest, False, None, 0, Outcome.PASS)


def all_records(
    collection: str, rows: int, watermark: Watermark | None, *, whole: bool
) -> RuleCheck:
    """Return the record of a collection: its number of records and its watermark.

    Args:
        collection: of the data map.
        rows: of the collection, by the last full check.
        watermark: None when the next check has to examine all records.
        whole: this check was a full one.
    """
    definition, value = (watermark.definition, watermark.value) if watermark else ("", None)
    return RuleCheck(collection, _ALL, definition, whole, rows, 0, Outcome.PASS, value)


def begin(conn: Connection, place: register.Place) -> int:
    """Record that a run is about to enter a collection in the register.

    Returns:
        A number greater than those of all runs that began before, whatever their clocks said.
    """
    key = {**asdict(place), "rule": _BEGUN}
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
    """Keep what a run found, in place of what an earlier try of it found."""
    told = {"dag_id": dag_id, "run_id": run_id, "database": database, "checked_at": at}
    mine = [quality_check.c[key] == told[key] for key in ("dag_id", "run_id", "database")]
    conn.execute(delete(quality_check).where(*mine, quality_check.c.rule != _BEGUN))
    conn.execute(update(quality_check).where(*mine).values(broken=0, checked_at=at))  # it has ended
    if checks:
        conn.execute(
            insert(quality_check),
            [{**check.__dict__, "outcome": str(check.outcome), **told} for check in checks],
        )


@dataclass(frozen=True)
class LastCheck:
    """The last sealed check of a collection.

    Attributes:
        watermark: up to where it read changed records.
        rows: records that each rule was about, by the last full check.
        broken: records that broke each rule.
        definitions: of what was checked, by rule.
        full_at: when the last full check was made.
    """

    watermark: Watermark
    rows: Mapping[str, int]
    broken: Mapping[str, int]
    definitions: Mapping[str, str]
    full_at: datetime

    @property
    def all_rows(self) -> int:
        """Records of the collection, by the last full check."""
        return self.rows[_ALL]

    def was_clean(self, place: JsonPlace) -> bool:
        """Return whether a place in a JSON column had no keys beside those that are declared."""
        return self.definitions.get(_CLEAN + place.field) == place.digest


def last_check(
    conn: Connection,
    database: str,
    collection: str,
    expectations: Sequence[Expectation],
    now: datetime,
) -> LastCheck | Message:
    """Return the last sealed check of a collection, or why the next one has to be a full one.

    Only runs with a sealed bundle count, so that a watermark moves when its evidence is there.

    A full check is due when there is no such run, a rule is new or was changed or could not be
    checked, the last full check is a week ago, or another run began since and may have changed the
    register (with other rules, by another clock, before this one's snapshot).

    Args:
        conn: to the state database.
        database: of the data map.
        collection: of the data map.
        expectations: of the collection.
        now: the present moment.
    """
    rows = _latest_sealed(conn, database, collection)
    if not rows:
        return _("no check of it was sealed yet")
    if any(row.rule == _BEGUN and row.broken is None for row in rows):
        return _("the last check of it did not end")
    definitions = {row.rule: row.definition for row in rows}
    broken = {row.rule: row.broken for row in rows}
    for rule in expectations:
        if definitions.get(rule.id) != rule.digest:
            return _("the expectation {rule} is new or was changed", rule=rule.id)
        if broken[rule.id] is None or broken[rule.id] > MOST_NAMED:
            return _(
                "the last check could not check the expectation {rule}, or could not name all "
                "records that break it",
                rule=rule.id,
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
        return _("all of them are examined every seventh day")
    if now < full_at:
        return _("the clock was set back since the last check")
    if _another_since(conn, database, collection, min(row.number for row in rows)):
        return _("another check began after the last sealed one")
    (counted,) = [row for row in rows if row.rule == _ALL] or [None]
    if counted is None or counted.watermark is None:
        return _("the last check left no watermark")
    if not counted.rows:
        return _("it had no records at the last check")
    return LastCheck(
        Watermark.parse(counted.definition, counted.watermark),
        {row.rule: row.rows for row in rows},
        broken,
        definitions,
        full_at,
    )


def _another_since(conn: Connection, database: str, collection: str, number: int) -> bool:
    """Return whether a run began, or kept something, after the last sealed one began."""
    last = _last_sealed(database, collection)
    other = exists().where(
        quality_check.c.database == database,
        quality_check.c.collection == collection,
        quality_check.c.number > number,
        tuple_(quality_check.c.dag_id, quality_check.c.run_id).not_in(select(last)),
    )
    return bool(conn.scalar(select(other)))


def last_count(conn: Connection, database: str, collection: str) -> tuple[int, datetime] | None:
    """Return how many records a collection had and when, by sealed evidence; None if unknown."""
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


def trend(conn: Connection, database: str) -> list[Trend]:
    """Return the results of the last runs, oldest first."""
    mine = quality_check.c.database == database
    latest = (
        select(quality_check.c.checked_at)
        .where(mine)
        .distinct()
        .order_by(quality_check.c.checked_at.desc())
        .limit(MOST_RUNS)
    )
    unchecked = func.count().filter(quality_check.c.broken.is_(None))
    query = (
        select(quality_check.c.checked_at, func.sum(quality_check.c.broken), unchecked)
        .where(mine, quality_check.c.checked_at.in_(latest))
        .group_by(quality_check.c.checked_at)
        .order_by(quality_check.c.checked_at)
    )
    return [
        Trend(at, None if missing else int(broken)) for at, broken, missing in conn.execute(query)
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
        .order_by(evidence_ledger.c.seq.desc())  # not by the clock, which may have been set back
        .limit(1)
        .subquery()
    )


def _sealed(query: Select[Any]) -> Select[Any]:
    same = and_(
        evidence_ledger.c.dag_id == quality_check.c.dag_id,
        evidence_ledger.c.run_id == quality_check.c.run_id,
    )
    return query.join(evidence_ledger, same)


def close_dropped(
    findings: StepFindings, conn: Connection, place: register.Place, rules: Sequence[str]
) -> None:
    """Close the entries of rules that the pack no longer has; their records may still be broken."""
    with conn.begin():
        closed = register.close_others(conn, place, rules)
    if closed:
        findings.warn(
            "quality.rule_dropped",
            _(
                "{count} entries of the quarantine register were closed because the policy pack "
                "has their rules no longer: {rules}. Nobody found their records good.",
                count=sum(closed.values()),
                rules=", ".join(sorted(closed)),
            ),
            _("See that the rules were left out on purpose."),
            subject=f"{place.database}.{place.collection}",
        )


def notice_dropped(
    findings: StepFindings,
    conn: Connection,
    run: RunContext[None],
    at: datetime,
    database: str,
    collections: set[str],
) -> None:
    """Close the entries of collections for which the pack has no suite any more.

    If it has one again, the next check examines all records: this run is noted as one of theirs.
    """
    with conn.begin():
        left = register.forsaken(conn, database, run.run.dag_id, collections)
    for name in left:
        place = register.Place(database, name, run.run.dag_id, run.run.run_id, at)
        with conn.begin():
            begin(conn, place)
        close_dropped(findings, conn, place, ())
