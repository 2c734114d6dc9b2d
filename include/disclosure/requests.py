"""The register of requests for customer information. A stored request never changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import psycopg
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects.postgresql import insert as insert_or_skip

from include.approvals.approvers import same_person
from include.disclosure.content import (
    MOST_KEY_LENGTH,
    MOST_KEYS,
    RequestContent,
    UsePlan,
    digest_document,
    digest_keys,
    digest_request,
)
from include.disclosure.planning import key_filter
from include.disclosure.tables import use_request, use_request_key, use_request_run
from include.notify.outbox import Run
from include.services.errors import ControlFailed, UsageError

_LIMIT_NUMBER = 2**63


@dataclass(frozen=True)
class UseRequest:
    """A stored request.

    Attributes:
        id: number of the request.
        requested_at: when the request was stored.
        content: content of the request.
        plan: plan that the requester was shown.
        sha256: digest of content and plan, which approvals name.
    """

    id: int
    requested_at: datetime
    content: RequestContent
    plan: UsePlan
    sha256: str

    @property
    def requester(self) -> str:
        """The account of the employee who requests the information."""
        return self.content.requester


def store_request(
    conn: Connection,
    content: RequestContent,
    plan: UsePlan,
    keys: frozenset[str],
    requested_at: datetime,
) -> UseRequest:
    """Store a request with its plan and its keys, and return it with its number.

    Args:
        conn: the state database, in a transaction.
        content: content of the request; its digest of keys has to be that of `keys`.
        plan: plan of the request.
        keys: uploaded keys.
        requested_at: current time.

    Raises:
        UsageError: a list of keys is missing, not needed, too long, or not the list of the content.
    """
    check_keys(content, keys)
    sha256 = digest_request(content, plan)
    row = {
        "requester": content.requester,
        "requested_at": requested_at,
        "content": content.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
        "sha256": sha256,
    }
    number = conn.execute(insert(use_request).values(row).returning(use_request.c.id)).scalar_one()
    if keys:
        connection = cast("psycopg.Connection[object]", conn.connection.driver_connection)
        with connection.cursor().copy("COPY use_request_key (request_id, key) FROM STDIN") as copy:
            for key in sorted(keys):
                copy.write_row((number, key))
    return UseRequest(number, requested_at, content, plan, sha256)


def check_keys(content: RequestContent, keys: frozenset[str]) -> None:
    """Check that a list of keys is the list of a request.

    Raises:
        UsageError: the list is missing, not needed, too long, or another list.
    """
    has_key_column = key_filter(content) is not None
    if has_key_column and not keys:
        raise UsageError(
            "The selection has a key column, but no keys were entered.", "Enter the keys."
        )
    if keys and not has_key_column:
        raise UsageError(
            "Keys were entered, but the selection has no key column.", "Choose the key column."
        )
    if len(keys) > MOST_KEYS or any(len(key) > MOST_KEY_LENGTH for key in keys):
        raise UsageError(
            f"The list of keys has more than {MOST_KEYS} keys, or a key with more than "
            f"{MOST_KEY_LENGTH} characters.",
            "Split the request.",
        )
    if (content.keys, content.keys_sha256) != (len(keys), digest_keys(keys)):
        raise UsageError("The list of keys changed.", "Make a new request.")


def load_request(conn: Connection, number: int) -> UseRequest:
    """Return the request with a number.

    Raises:
        UsageError: the register has no such request.
        ControlFailed: the stored request does not match its digest.
    """
    query = select(use_request).where(use_request.c.id == number)
    row = conn.execute(query).mappings().first() if 0 < number < _LIMIT_NUMBER else None
    if row is None:
        raise UsageError(
            f"There is no request {number}.", "List the requests: ./parcelseal access list."
        )
    return _request(dict(row))


def load_requests(conn: Connection, numbers: Collection[int]) -> dict[int, UseRequest]:
    """Return several requests: number -> request.

    Raises:
        ControlFailed: a stored request does not match its digest.
    """
    query = select(use_request).where(use_request.c.id.in_(numbers))
    rows = [dict(row) for row in conn.execute(query).mappings()]
    return {request.id: request for request in map(_request, rows)}


def _request(row: dict[str, object]) -> UseRequest:
    content = RequestContent.model_validate(row["content"])
    plan = UsePlan.model_validate(row["plan"])
    # The digest is that of the stored JSON: a later version may have more fields with defaults.
    actual = digest_document(row["content"], row["plan"])
    if actual != row["sha256"] or content.requester != row["requester"]:
        raise ControlFailed(
            f"Request {row['id']} was changed after it was stored.",
            "Find out who changed it in the state database. Make a new request.",
        )
    return UseRequest(
        cast("int", row["id"]),
        cast("datetime", row["requested_at"]),
        content,
        plan,
        row["sha256"],
    )


def requesters_of(conn: Connection, numbers: Collection[int]) -> dict[int, str]:
    """Return the requester of each request: number -> account. The requests are not verified."""
    query = select(use_request.c.id, use_request.c.requester).where(use_request.c.id.in_(numbers))
    return {row.id: row.requester for row in conn.execute(query)}


def databases_of(conn: Connection, numbers: Collection[int]) -> dict[int, str]:
    """Return the database of each request: number -> mapped database.

    The requests are not verified.
    """
    database = use_request.c.content["database"].astext
    query = select(use_request.c.id, database).where(use_request.c.id.in_(numbers))
    return {row[0]: row[1] for row in conn.execute(query)}


def keys_of(conn: Connection, request: UseRequest) -> frozenset[str]:
    """Return the uploaded keys of a request.

    Raises:
        ControlFailed: the keys are not those that the request names.
    """
    query = select(use_request_key.c.key).where(use_request_key.c.request_id == request.id)
    keys = frozenset(conn.scalars(query))
    content = request.content
    if (content.keys, content.keys_sha256) != (len(keys), digest_keys(keys)):
        raise ControlFailed(
            f"The list of keys of request {request.id} is missing or changed.",
            "Make a new request.",
        )
    return keys


def delete_keys(conn: Connection, numbers: Collection[int]) -> int:
    """Delete the uploaded keys of requests, and return the number of deleted keys."""
    keys = use_request_key
    return conn.execute(delete(keys).where(keys.c.request_id.in_(numbers))).rowcount


def attach_run(
    conn: Connection, request: UseRequest, run: Run, person: str | None, at: datetime
) -> None:
    """Let a run ask for the approval of a request. Each request has at most one run.

    A repeated step of the same run changes nothing.

    Args:
        conn: the state database, in a transaction.
        request: the request.
        run: the run.
        person: account of the person who triggered the run; None if a command started it.
        at: current time.

    Raises:
        UsageError: another run has the request, or the person is not the requester.
    """
    if person is not None and not same_person(person, request.requester):
        raise UsageError(
            f"Request {request.id} belongs to another employee.",
            "Only the requester starts the approval of a request.",
        )
    row = {"request_id": request.id, "dag_id": run.dag_id, "run_id": run.run_id}
    statement = insert_or_skip(use_request_run).values(row | {"attached_at": at})
    conn.execute(statement.on_conflict_do_nothing(index_elements=["request_id"]))
    attached = run_of(conn, request.id)
    if attached != run:
        raise UsageError(
            f"Another run already asks for the approval of request {request.id}.",
            "Make a new request.",
        )


def run_of(conn: Connection, number: int) -> Run | None:
    """Return the run that asks for the approval of a request, or None."""
    table = use_request_run.c
    query = select(table.dag_id, table.run_id).where(table.request_id == number)
    row = conn.execute(query).first()
    return Run(*row) if row else None


def request_of_run(conn: Connection, run: Run) -> UseRequest | None:
    """Return the request whose approval a run asks for, or None."""
    table = use_request_run.c
    query = select(table.request_id).where(table.dag_id == run.dag_id, table.run_id == run.run_id)
    number = conn.execute(query).scalar()
    return None if number is None else load_request(conn, number)
