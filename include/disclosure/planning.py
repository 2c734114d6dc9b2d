"""Plan a request: which fields are outside of the purpose, and how many records it would reach."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection

from include.disclosure.content import DeliveryForm, Filter, RequestContent, UsePlan
from include.disclosure.extracts.model import MAX_XLSX_ROWS
from include.disclosure.rules import FilterKind, UsableCollection, UseRules
from include.disclosure.selection import (
    Selection,
    compile_selection,
    counting_people_query,
    counting_query,
    matched_keys_query,
    planned_columns,
    read_column_types,
)
from include.erasure import requests as erasure_requests
from include.messages import Message, _
from include.policy.datamap import MappedCollection
from include.services.database import lost
from include.services.errors import UsageError
from include.workflow.run_context import RunContext


@dataclass(frozen=True)
class RequestedRecords:
    """The records of a request in one snapshot of the mapped database.

    Attributes:
        connection: connection on which a REPEATABLE READ transaction is open.
        collection: collection of the data map.
        usable: rule of the collection in use.yaml.
        selection: the selected records.
        plan: plan of the request in this snapshot.
    """

    connection: psycopg.Connection[Any]
    collection: MappedCollection
    usable: UsableCollection
    selection: Selection
    plan: UsePlan


def check_content(run: RunContext[UseRules], content: RequestContent) -> list[str]:
    """Check a request against use.yaml and the data map, without reading the database.

    Returns:
        The requested fields that the purpose does not need. They are refused.

    Raises:
        UsageError: the request names something that does not exist or may not be requested.
    """
    rules = run.rules
    purpose = rules.purpose(content.purpose)
    if purpose is None:
        raise UsageError(
            f"Information may not be requested for the purpose {content.purpose}.",
            f"Use one of: {', '.join(use.purpose for use in rules.purposes)}.",
        )
    if content.days > purpose.max_days:
        raise UsageError(
            f"The purpose {content.purpose} allows at most {purpose.max_days} days.",
            "Request fewer days.",
        )
    usable = rules.usable(content.database, content.collection)
    if usable is None:
        raise UsageError(
            f"No extract may be requested from {content.collection}.",
            f"Use one of: {', '.join(usable.collection for usable in rules.collections)}.",
        )
    collection = run.database(content.database).collections[content.collection]
    if unknown := [name for name in content.fields if name not in collection.fields]:
        raise UsageError(
            f"{content.collection} has no field {', '.join(unknown)}.", "Correct the request."
        )
    if outside := [name for name in content.unmasked if name not in content.fields]:
        raise UsageError(
            f"Unmasked fields that were not requested: {', '.join(outside)}.",
            "Request these fields, too.",
        )
    for entry in content.filters:
        if usable.filters.get(entry.column) is not entry.kind:
            raise UsageError(
                f"Records of {content.collection} cannot be selected by {entry.column}.",
                f"Use one of: {', '.join(usable.filters)}.",
            )
    if not content.case.strip():
        raise UsageError("The case reference is missing.", "Name the case of the request.")
    _check_login(rules, content, collection)
    is_for_machine = content.form is DeliveryForm.AGE
    if is_for_machine != bool(content.recipient):
        raise UsageError(
            "An extract for a machine needs its age key, and other extracts have none.",
            "Enter the public key, which begins with age1, or choose another form.",
        )
    return refused_fields(run, content)


def _check_login(rules: UseRules, content: RequestContent, collection: MappedCollection) -> None:
    """Raise UsageError if a database login may not be requested for these records."""
    if content.form is not DeliveryForm.LOGIN:
        return
    if rules.logins is None or content.database not in rules.logins.databases:
        raise UsageError(
            f"No database login may be requested for {content.database}.", "Request a file instead."
        )
    if not collection.primary_key:
        raise UsageError(
            f"{content.collection} has no primary key, so a login cannot be confined to the "
            "approved records.",
            "Request a file instead.",
        )


def refused_fields(run: RunContext[UseRules], content: RequestContent) -> list[str]:
    """Return the requested personal fields that the purpose does not need (PIPL 6)."""
    collection = run.database(content.database).collections[content.collection]
    needed = {
        field
        for purpose in run.pack.purposes
        if purpose.id == content.purpose
        for field in purpose.fields.get(content.database, {}).get(content.collection, ())
    }
    return [
        name
        for name in content.fields
        if collection.fields[name].is_personal and name not in needed
    ]


@contextmanager
def open_records(
    run: RunContext[UseRules],
    conn: Connection,
    content: RequestContent,
    keys: Collection[str],
    *,
    is_read_only: bool = True,
) -> Iterator[RequestedRecords]:
    """Open a snapshot of the requested records, and plan the request in it.

    Records of data subjects with an open erasure request are left out.

    Args:
        run: context of the run or command.
        conn: the state database.
        content: content of the request.
        keys: uploaded keys of the request.
        is_read_only: whether the transaction may not write. The caller commits what it writes.

    Raises:
        UsageError: the request is not valid, or the table differs from the data map.
        ServiceError: the database cannot be reached.
    """
    refused = check_content(run, content)
    usable = run.rules.usable(content.database, content.collection)
    assert usable is not None
    collection = run.database(content.database).collections[content.collection]
    erased = [request.subject for request in erasure_requests.open_requests(conn, content.database)]
    address = run.reader(content.database)
    with address.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = is_read_only
        try:
            selection = compile_selection(
                content,
                collection,
                usable,
                types=read_column_types(connection, collection),
                keys=keys,
                timezone=run.pack.calendar.timezone,
                erased_subjects=erased,
            )
            plan = _plan(connection, content, collection, usable, selection, refused)
            yield RequestedRecords(connection, collection, usable, selection, plan)
        except psycopg.OperationalError as error:
            raise lost(address, error) from None
        except psycopg.Error as error:
            raise UsageError(
                f"{content.collection} cannot be read: {_cause(error)}.",
                "Correct the data map, use.yaml, or the rights of the login.",
            ) from None


def _cause(error: psycopg.Error) -> str:
    state = error.sqlstate or ""
    primary = error.diag.message_primary if state.startswith("42") else None
    return primary or f"SQLSTATE {state}"


def _plan(
    connection: psycopg.Connection[Any],
    content: RequestContent,
    collection: MappedCollection,
    usable: UsableCollection,
    selection: Selection,
    refused: Sequence[str],
) -> UsePlan:
    row = connection.execute(counting_query(selection, usable), selection.values).fetchone()
    assert row is not None
    records, minors, excluded = row
    counted = connection.execute(
        counting_people_query(selection, usable), selection.values
    ).fetchone()
    assert counted is not None
    return UsePlan(
        refused_fields=tuple(refused),
        columns=planned_columns(content, collection, usable),
        records=records,
        people=counted[0],
        minors=minors,
        excluded=excluded,
        unknown_keys=_unknown_keys(connection, content, selection),
        needs_second_approval=bool(content.unmasked) or minors != 0,
    )


def _unknown_keys(
    connection: psycopg.Connection[Any], content: RequestContent, selection: Selection
) -> int:
    entry = key_filter(content)
    if entry is None:
        return 0
    row = connection.execute(
        matched_keys_query(selection, entry.column), selection.values
    ).fetchone()
    assert row is not None
    return max(0, content.keys - int(row[0]))


def key_filter(content: RequestContent) -> Filter | None:
    """Return the filter of a request that needs uploaded keys, or None."""
    return next((entry for entry in content.filters if entry.kind is FilterKind.KEY), None)


def plan_problem(rules: UseRules, plan: UsePlan, form: DeliveryForm) -> Message | None:
    """Return why a plan cannot be approved; None if it can.

    Args:
        rules: content of use.yaml.
        plan: plan of the request.
        form: form of the extract.
    """
    if plan.refused_fields:
        return _(
            "The purpose does not need these fields: {fields}.",
            fields=", ".join(plan.refused_fields),
        )
    if plan.records == 0:
        return _("The selection matches no record.")
    if plan.records > rules.most_records:
        return _(
            "The selection matches {records} records; an extract has at most {most}.",
            records=plan.records,
            most=rules.most_records,
        )
    if form is DeliveryForm.XLSX and plan.records > MAX_XLSX_ROWS:
        return _(
            "The selection matches {records} records; an Excel file has at most {most}. Choose the "
            "ZIP file.",
            records=plan.records,
            most=MAX_XLSX_ROWS,
        )
    return None
