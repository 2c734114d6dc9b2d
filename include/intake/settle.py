"""Steps of `review_intake` after the decision: act on it, and check what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from include.approvals import registry
from include.approvals.registry import Decision
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.intake import aside, batches, people
from include.intake.checks import FAIL, Key, broken_by_rule, kept_out
from include.intake.desk import Desk
from include.intake.names import CLAUSE, STEP_REVIEW, STEP_SETTLE, STEP_VERIFY, rule_and_batch
from include.intake.promote import Settled, promote, reject, settled_by
from include.messages import _
from include.services.errors import ControlFailed

Progress = Callable[[str], None]


class ContentChanged(ControlFailed):
    """A batch is not what was decided on.

    Attributes:
        gone: none of its rows is pending any more, so somebody else has settled them.
    """

    def __init__(self, batch: str, *, gone: bool) -> None:
        super().__init__(f"{batch} changed after the decision.")
        self.gone = gone


def settle(desk: Desk, checked: StepRecord, progress: Progress | None = None) -> StepRecord:
    """Act on the decision on a batch; without one it stays pending.

    Safe to repeat and to kill at any point: see `include.intake.promote`.

    Args:
        desk: of the batch.
        checked: the batch's check, which has the number of the request.
        progress: is called with ``before commit``, where an error undoes everything, and with
            ``committed``.
    """
    seen = StepFindings(STEP_SETTLE, CLAUSE, part=checked.part)
    request_id = int(checked.data["request"])
    with desk.state.connect() as conn:
        decision = registry.decision_on(conn, request_id)
    if decision is None:
        return seen.record({"left": checked.data["rows"]})
    try:
        done = _settle(desk, str(checked.data["batch"]), decision, progress or (lambda _: None))
    except ContentChanged as changed:
        return _void(seen, checked, decision, changed)
    if done.set_aside:
        seen.find(
            "intake.set_aside",
            Outcome.ATTENTION,
            _("{count} records break a rule and were not let in.", count=done.set_aside),
            _("Have them corrected and entered again; the quarantine names them by key."),
        )
    if done.rejected:
        seen.find(
            "intake.rejected",
            Outcome.ATTENTION,
            _("{who} rejected the batch.", who=decision.decided_by),
            _("Read the reason, have the batch corrected and entered again."),
        )
    seen.measure("intake.promoted", done.promoted, "rows")
    seen.measure("intake.set_aside", done.set_aside, "rows")
    seen.measure("intake.rejected", done.rejected, "rows")
    return seen.record(
        {
            "promoted": done.promoted,
            "set_aside": done.set_aside,
            "rejected": done.rejected,
            "records": dict(done.records),
        }
    )


def _void(
    seen: StepFindings, checked: StepRecord, decision: Decision, changed: ContentChanged
) -> StepRecord:
    """Say that a decision is void, and leave the batch as it is."""
    if changed.gone:
        seen.find(
            "intake.settled_elsewhere",
            Outcome.ATTENTION,
            _("Another run settled the batch or its records were deleted; nothing was done."),
            _("See the other run's report; do not run the workflow twice at once."),
        )
        return seen.record({"left": 0, "changed": True})
    seen.find(
        "intake.changed",
        Outcome.FAIL,
        _(
            "The batch changed after {who} decided on it; nothing was done.",
            who=decision.decided_by,
        ),
        _("Find out who changed it. It stays pending, and the next run asks again."),
    )
    return seen.record({"left": checked.data["rows"], "changed": True})


def _settle(desk: Desk, batch: str, decision: Decision, progress: Progress) -> Settled:
    incoming = desk.incoming
    with desk.writer.connect(autocommit=True) as connection:
        with batches.unit_of_work(connection, incoming, write=True):
            reviewer = people.staff_key(connection, incoming, decision.decided_by)
            act = {"reviewer": reviewer, "at": decision.decided_at}
            done = settled_by(connection, incoming, batch, approved=decision.approved, **act)
            if not done.rows:
                _require_unchanged(desk, connection, batch, decision)
                if decision.approved:
                    broken = _broken(desk, connection, batch)
                    done = promote(connection, incoming, batch, broken=broken, **act)
                else:
                    done = reject(connection, incoming, batch, **act)
            progress("before commit")
        progress("committed")
    return done


def _require_unchanged(
    desk: Desk, connection: psycopg.Connection[Any], batch: str, decision: Decision
) -> None:
    """Compare the batch with what was decided on, in the transaction that acts on it."""
    content = batches.content(connection, desk.incoming, batch)
    with desk.state.connect() as conn:
        asked = registry.request(conn, decision.request_id)
        if asked.sha256 != content.sha256:
            raise ContentChanged(batch, gone=not content.rows)
        if decision.approved:
            registry.require(conn, decision.request_id, content.sha256)


def _broken(desk: Desk, connection: psycopg.Connection[Any], batch: str) -> set[Key]:
    """Rows that break a rule now: what was good when it was checked may be a duplicate since."""
    where = desk.incoming.pending(batch)
    verdicts, keys = broken_by_rule(desk.checkers, connection, where, desk.clock.now())
    faulty = [one.rule for one in verdicts if one.broken is None and one.severity == FAIL]
    if faulty:
        raise ControlFailed(
            f"Rules of {batch} could not be checked: {', '.join(faulty)}.",
            "Nothing was promoted. Correct the rules and run the workflow again.",
        )
    for rule, found in keys.items():
        desk.quarantine(batch, rule, found)
    return kept_out(keys)


def verify(desks: Sequence[Desk], records: Sequence[StepRecord]) -> StepRecord:
    """Count by queries of its own what still waits too long and what this run let in unreviewed.

    What was set aside and has been dealt with since is resolved in the quarantine register.

    Args:
        desks: every incoming table.
        records: of this run's steps.
    """
    seen = StepFindings(STEP_VERIFY, CLAUSE)
    late: list[str] = []
    promoted = unreviewed = resolved = 0
    for desk in desks:
        now = desk.clock.now()
        with (
            desk.reader.connect(autocommit=True) as connection,
            batches.unit_of_work(connection, desk.incoming, write=False),
        ):
            found = batches.waiting(connection, desk.incoming, now).batches
            late += [desk.incoming.part(one.name) for one in found if one.due and one.due < now]
            for batch, at in _decided(desk, records):
                rows, bad = _unreviewed(connection, desk, batch, at)
                promoted, unreviewed = promoted + rows, unreviewed + bad
            resolved += aside.resolve(desk, connection)
    seen.measure("intake.resolved", resolved, "rows")
    said = sum(int(one.data.get("promoted", 0)) for one in records if one.step == STEP_SETTLE)
    if said != promoted:
        seen.find(
            "intake.not_found",
            Outcome.FAIL,
            _(
                "{said} records were let in, and {found} are found afterwards.",
                said=said,
                found=promoted,
            ),
            _("See what changed the incoming table meanwhile, or rounds its times."),
        )
    for part in late:
        seen.find(
            "intake.past_deadline",
            Outcome.FAIL,
            _("The batch still waits for its review, past its deadline."),
            _("Have it reviewed today: answer the question in Airflow when it is asked again."),
            subject=part,
        )
    if unreviewed:
        seen.find(
            "intake.unreviewed",
            Outcome.FAIL,
            _(
                "{count} of {rows} records let in have no formal record reviewed by another.",
                count=unreviewed,
                rows=promoted,
            ),
            _("See what else writes to the formal tables; correct the targets in intake.yaml."),
        )
    return seen.record({"past_deadline": len(late), "promoted": promoted, "unreviewed": unreviewed})


def _decided(desk: Desk, records: Sequence[StepRecord]) -> list[tuple[str, datetime]]:
    """Batches of a table that this run has a decision on: name, when."""
    found = []
    for record in records:
        rule, batch = rule_and_batch(record.part)
        data = record.data
        if record.step == STEP_REVIEW and rule == desk.incoming.rule.id and "reason" in data:
            found.append((batch, datetime.fromisoformat(data["decided_at"])))
    return found


def _unreviewed(
    connection: psycopg.Connection[Any], desk: Desk, batch: str, at: datetime
) -> tuple[int, int]:
    """Count rows that a decision let in, and those whose formal record does not show it."""
    incoming, rule = desk.incoming, desk.incoming.rule
    collection, column = rule.keys[rule.back_reference.key]
    target = next(one for one in rule.targets if rule.back_reference.key in one.keys)
    stamp = target.reviewed
    shown = (
        SQL("f.{} = i.{} AND f.{} = i.{}").format(
            Identifier(stamp.by),
            Identifier(rule.reviewed.by),
            Identifier(stamp.at),
            Identifier(rule.reviewed.at),
        )
        if stamp
        else SQL("true")
    )
    query = SQL(
        "SELECT count(*), count(*) FILTER (WHERE (f.{column} IS NOT NULL AND {shown} "
        "AND i.{reviewer} <> i.{enterer}) IS NOT TRUE) "
        "FROM {table} AS i LEFT JOIN {formal} AS f ON f.{column} = i.{back} "
        "WHERE i.{batch} = {name} AND i.{state} = {promoted} AND i.{at} = %(at)s"
    ).format(
        column=Identifier(column),
        shown=shown,
        reviewer=Identifier(rule.reviewed.by),
        enterer=Identifier(rule.entered.by),
        table=incoming.table,
        formal=incoming.table_of(collection),
        back=Identifier(rule.back_reference.column),
        batch=Identifier(rule.batch),
        name=Literal(batch),
        state=Identifier(rule.state.column),
        promoted=Literal(rule.state.promoted),
        at=Identifier(rule.reviewed.at),
    )
    row = connection.execute(query, {"at": at}).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
