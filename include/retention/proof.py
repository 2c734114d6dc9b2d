"""The last step of `enforce_retention` before its seal: what is left, and that the counts agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from include.erasure import ledger, request_records, requests
from include.erasure.request_records import Reader
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.holds import records as holds
from include.messages import _
from include.retention import told
from include.retention.clocks import APART
from include.retention.desk import Desk
from include.retention.erasing import done_of
from include.retention.names import CLAUSE, STEP_VERIFY
from include.retention.request_states import judge
from include.retention.session import one_view, prepare
from include.retention.verify import Inspection, Left, Orphans
from include.state.tables import erasure_batch


@dataclass(frozen=True)
class Copy:
    """A restore point that still holds what was erased.

    Attributes:
        id: of the restore point.
        taken_at: moment of its snapshot; None where its manifest is refused, so that nobody knows.
        expires_at: from when on pruning may delete it; likewise.
        held: whether a legal hold keeps it beyond that.
    """

    id: str
    taken_at: datetime | None = None
    expires_at: datetime | None = None
    held: bool = False


def verify(
    desk: Desk,
    planned: StepRecord,
    executed: StepRecord | None,
    copies: Sequence[Copy] | None,
) -> StepRecord:
    """Count by queries of its own what is left, and close the requests of which nothing is.

    Args:
        desk: of the database.
        planned: record of the plan.
        executed: record of the execution; None when it did not finish.
        copies: restore points of the database; None when they could not be read.
    """
    seen = StepFindings(STEP_VERIFY, CLAUSE, part=desk.database.name)
    as_of = datetime.fromisoformat(planned.data["as_of"])
    with desk.state.connect() as conn:
        # One that was released since the plan: its records are the next plan's.
        of_plan = [int(one["hold"]) for one in planned.data.get("holds", ())]
        known = holds.on_records(conn, desk.database.name, of_plan)
        asked = requests.open_requests(conn, desk.database.name)
        remembered = request_records.remembered(conn, desk.database.name)
        last = _last_erasure(conn, desk)
    with desk.reader.connect(autocommit=True) as connection:
        prepare(connection, desk.database)
        with one_view(connection, desk.database):
            reader = Reader(connection, desk.database, desk.keys, desk.rules)
            inspection = Inspection(
                connection,
                desk.database,
                desk.rules,
                as_of=as_of,
                timezone=desk.timezone,
                holds=known,
                records=reader.records(remembered),
            )
            left = [_explained(one, executed) for one in inspection.left()]
            orphans = inspection.orphans()
            subjects = {one.id: inspection.subject(one.subject) for one in asked}
            gone = reader.gone(remembered, inspection.still_there())
            linked: list[str] = []
            if any(request.found_earlier for request in asked):
                schedule = replace(desk.schedule(as_of), remembered=())
                linked = schedule.graph(connection).linked_classes()
    _left(seen, left, executed.data.get("not_approved", ()) if executed is not None else ())
    _orphans(seen, orphans)
    lasting = Counter(
        record.request_id
        for _subject, record in remembered
        if not reader.is_erased_on_request(record)
    )
    became = judge(desk, seen, asked, subjects, lasting, linked)
    with desk.state.begin() as conn:
        request_records.forget(conn, gone)
    counted = Counter(one["state"] for one in became)
    closed = counted["closed"] + counted["closed_late"]
    done = done_of(desk)
    _agreement(seen, executed, done)
    _within(seen, planned, done)
    with desk.state.connect() as conn:
        entered = told.of_ledger(conn, desk)
        _all_there(seen, ledger.missing(conn, desk.database.name))
    still = [
        one
        for one in copies or ()
        if last is not None and (one.taken_at is None or one.taken_at <= last + APART)
    ]
    if refused := sum(1 for one in still if one.taken_at is None):
        seen.find(
            "retention.backups_refused",
            Outcome.ATTENTION,
            _(
                "{count} backups have a manifest that is refused: they may hold what was erased, "
                "and nobody knows from when they are.",
                count=refused,
            ),
            _("See `./parcelseal backup list`; find out who changed them."),
        )
    if copies is None:
        seen.find(
            "retention.backups_unread",
            Outcome.ATTENTION,
            _(
                "The off-site store could not be read: which backups still hold what was erased is "
                "not known."
            ),
            _("See what `backup_offsite` says of the store; the next run looks again."),
        )
    seen.measure("retention.unexplained", sum(one.unexplained for one in left), "rows")
    seen.measure("retention.erased", sum(done.values()), "rows")
    return seen.record(
        {
            "left": [vars(one) for one in left],
            "orphans": [vars(one) for one in orphans],
            "done": done,
            "unexplained": sum(one.unexplained for one in left),
            "requests": became,
            "requests_open": len(became) - closed,
            "requests_closed": closed,
            "requests_overdue": sum(
                counted[one] for one in ("overdue", "closed_late", "restricted_late")
            ),
            "verified_at": desk.clock.now().isoformat(),
            "ledger": entered,
            "copies": None if copies is None else [_copy(one) for one in still],
        }
    )


def _explained(one: Left, executed: StepRecord | None) -> Left:
    """What is left, without what came after the plan."""
    more = executed.data.get("waiting", {}).get(one.name, 0) if executed is not None else 0
    waiting = min(one.unexplained, more)
    return replace(one, unexplained=one.unexplained - waiting, waiting=waiting)


def _last_erasure(conn: Connection, desk: Desk) -> datetime | None:
    """Moment by which the last thing that was ever erased from the database was gone.

    A batch is entered before its deletion commits and settled after it: a backup that is taken in
    between still has the records.
    """
    batch = erasure_batch
    gone = func.max(func.greatest(batch.c.erased_at, batch.c.settled_at))
    query = select(gone).where(batch.c.database == desk.database.name)
    found: datetime | None = conn.scalar(query)
    return found


def _copy(one: Copy) -> dict[str, Any]:
    return {
        "id": one.id,
        "taken_at": one.taken_at.isoformat() if one.taken_at else None,
        "expires_at": one.expires_at.isoformat() if one.expires_at else None,
        "held": one.held,
    }


def _left(seen: StepFindings, left: Sequence[Left], not_approved: Collection[str]) -> None:
    for one in left:
        if one.unexplained and one.name in not_approved:
            seen.find(
                "retention.left",
                Outcome.FAIL,
                _(
                    "{count} records are past their retention period and stay: a second person has "
                    "to approve, and did not.",
                    count=one.unexplained,
                ),
                _(
                    "If somebody rejected it, read why and correct the schedule or its limits. "
                    "Then run the workflow again and have its question answered in Airflow."
                ),
                subject=one.name,
            )
        elif one.unexplained:
            seen.find(
                "retention.left",
                Outcome.FAIL,
                _(
                    "{count} records are past their retention period, and no hold and no other "
                    "record keeps them.",
                    count=one.unexplained,
                ),
                _("See why they were not erased among this run's findings, and run it again."),
                subject=one.name,
            )


def _orphans(seen: StepFindings, orphans: Sequence[Orphans]) -> None:
    for one in orphans:
        seen.find(
            "retention.orphans",
            Outcome.FAIL if one.validated else Outcome.ATTENTION,
            _(
                "{count} records of {table} refer to records that are not there.",
                count=one.records,
                table=one.table,
            ),
            _("Find out what deletes around foreign keys; PostgreSQL itself would refuse.")
            if one.validated
            else _(
                "They may be older than the foreign key, which is NOT VALID. Correct them, then "
                "VALIDATE CONSTRAINT."
            ),
            subject=one.constraint,
        )


def _within(seen: StepFindings, planned: StepRecord, done: dict[str, int]) -> None:
    """Never more goes than was planned, by however many tries of the run."""
    for one in planned.data.get("classes", ()):
        allowed = one["to_delete"] + one["to_mask"]
        if (more := done.get(one["name"], 0) - allowed) > 0:
            seen.find(
                "retention.beyond_plan",
                Outcome.FAIL,
                _("{count} records more were erased than the plan says.", count=more),
                _("Raise an incident: two executions at once, or entries that are not this run's."),
                subject=one["name"],
            )


def _all_there(seen: StepFindings, missing: dict[str, int]) -> None:
    """Each entry of this run and of those before is in the ledger still, by the batches' counts."""
    for collection, entries in missing.items():
        seen.find(
            "retention.ledger_lost",
            Outcome.FAIL,
            _(
                "{count} entries are gone from the erasure ledger: after a restore nobody would "
                "know that these records were erased.",
                count=entries,
            ),
            _("Raise an incident: somebody deleted them, or the state database was damaged."),
            subject=collection,
        )


def _agreement(seen: StepFindings, executed: StepRecord | None, done: dict[str, int]) -> None:
    """Hold what the database said it erased against what stands in the ledger, then and now."""
    data = executed.data if executed is not None else {}
    if "done" in data and (data["done"] != done or data["counted"] != data["entered"]):
        seen.find(
            "retention.ledger_differs",
            Outcome.FAIL,
            _("The erasure ledger counts other records than the execution did."),
            _("Raise an incident: somebody else writes to the ledger, or entries were lost."),
        )
