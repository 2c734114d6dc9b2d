"""What the steps tell the certificate beside their counts: holds, requests, entries of the ledger.

Numbers, file numbers and people of the registries; never a key or a value of a record.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from include.approvals.registry import Request
from include.erasure.requests import ErasureRequest
from include.holds import registry
from include.retention.desk import Desk
from include.retention.plan import Plan
from include.retention.verify_records import Subject
from include.state.tables import erasure, erasure_batch


def of_plan(conn: Connection, desk: Desk, made: Plan) -> dict[str, Any]:
    """Return who began the run, its holds, and what reacts to its deletions.

    Args:
        conn: the state database.
        desk: of the database.
        made: the plan.
    """
    keeping = {held.hold for one in made.classes for held in one.held_by}
    return {
        "started_by": desk.starter,
        "key_id": made.key_id,
        "holds_that_counted": len(made.holds),
        "reactions": [one.model_dump(mode="json") for one in made.reactions],
        "holds": [_hold(one) for one in registry.active(conn) if one.id in keeping],
    }


def _hold(one: registry.Hold) -> dict[str, Any]:
    """A hold without what it is on: that is a key of records."""
    return {
        "hold": one.id,
        "kind": str(one.kind),
        "reason": one.reason,
        "owner": one.owner,
        "case": one.case_ref,
        "review_on": one.review_on.isoformat(),
    }


def of_request(asked: Request) -> dict[str, Any]:
    """What was asked of a second person, when, and for whom."""
    return {
        "request": asked.id,
        "asked_at": asked.asked_at.isoformat(),
        "asked_for": list(asked.requested_by),
    }


def of_ledger(conn: Connection, desk: Desk) -> dict[str, Any]:
    """What this run entered in the erasure ledger and settled."""
    batch = erasure_batch
    dag_id, run_id = desk.run
    query = select(
        func.count(),
        func.min(batch.c.id),
        func.max(batch.c.id),
        func.min(batch.c.erased_at),
        func.max(batch.c.erased_at),
    ).where(
        batch.c.database == desk.database.name,
        batch.c.dag_id == dag_id,
        batch.c.run_id == run_id,
        batch.c.settled_at.is_not(None),
    )
    count, first, last, begun, ended = conn.execute(query).one()
    keys = (
        select(erasure.c.key_id)
        .join(batch)
        .where(
            batch.c.database == desk.database.name,
            batch.c.dag_id == dag_id,
            batch.c.run_id == run_id,
        )
        .distinct()
        .order_by(erasure.c.key_id)
    )
    return {
        "batches": count,
        "first": first,
        "last": last,
        "begun": begun.isoformat() if begun else None,
        "ended": ended.isoformat() if ended else None,
        "key_ids": list(conn.scalars(keys)),
    }


def of_subject(one: ErasureRequest, found: Subject, state: str) -> dict[str, Any]:
    """One request of a data subject, by its file number, and what is left of it."""
    return {
        "request": one.id,
        "reference": one.reference,
        "received_on": one.received_on.isoformat(),
        "due_on": one.due_on.isoformat(),
        "left": found.records,
        "unexplained": found.unexplained,
        "taken_over": found.taken_over,
        "state": state,
    }
