"""Check whether the keys in legal holds and erasure requests can match records of a database.

A key can match if a value of a key column's data type could equal it. Only `count_on_hold` reads
records.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.holds.keys import split_key
from include.holds.records import RecordHolds
from include.holds.registry import RECORD_KINDS, Hold, HoldKind
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.document import read_bytes, read_document
from include.policy.fragments import any_of
from include.policy.loader import RETENTION
from include.policy.model import PolicyPack
from include.policy.problems import PackProblem
from include.policy.retention import RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.planning.counting import holds_by_value
from include.retention.planning.graph import FALSE
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.key_types import (
    KeyType,
    UnusableKey,
    can_name,
    explain_unusable,
    list_expressions,
    read_key_types,
)
from include.retention.postgres.relations import read_relations, require_disposable
from include.retention.postgres.session import open_snapshot, prepare_session
from include.services.database import DatabaseAddress, scalar
from include.services.errors import UsageError

Key = tuple[HoldKind, KeyType]


class UnmatchedRequest(UsageError):
    """Raised if the key of an erasure request cannot match any record of a database."""


def can_match(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    kind: HoldKind,
    values: Collection[str],
) -> bool:
    """Return whether a record of a database could have a key that a legal hold names.

    Only the types of the key columns are considered. No record is read.

    Args:
        address: address of the database, with the read-only login.
        database: the database in the data map.
        rules: record classes of the database.
        kind: type of object that the hold names, such as a waybill.
        values: the possible readings of the hold's value as a key. One is the whole text. If the
            text starts with ``<database>/``, the other is the text after this prefix. One match is
            sufficient.

    Raises:
        UnusableKey: a key column for this type of object has a data type that no hold can match.
        UsageError: the retention schedule does not fit the database, or a right is missing.
        ServiceError: the connection to the database was lost, or another session held a lock.
    """
    return _matches(_usable_keys(address, database, rules, kind), kind, values)


def _usable_keys(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    kind: HoldKind,
) -> list[Key]:
    """Return the keys of a database that identify a certain type of object, with their data types.

    Args:
        address: address of the database, with the read-only login.
        database: the database in the data map.
        rules: record classes of the database.
        kind: type of object, such as a waybill.

    Raises:
        UnusableKey: a key has a data type that no hold can match.
    """
    keys = [key for key in _keys(address, database, rules) if key[0] is kind]
    for _kind, key_type in keys:
        if reason := explain_unusable(kind, key_type):
            raise UnusableKey(f"In {database.name}, {reason[0]}.", reason[1])
    return keys


def require_matching_request(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    subject: str,
) -> None:
    """Refuse an erasure request whose key cannot match any record that is erased on request.

    Only the types of the key columns are compared. No record is read.

    Args:
        address: address of the database, with the read-only login.
        database: the database in the data map.
        rules: record classes of the database.
        subject: key of the data subject, as written in the request.

    Raises:
        UnusableKey: a key column of data subjects has a data type that no request can match.
        UnmatchedRequest: the key cannot match any record.
        UsageError: the retention schedule does not fit the database, or a right is missing.
        ServiceError: the connection to the database was lost, or another session held a lock.
    """
    erased = [rule for rule in rules if rule.on_request]
    keys = _usable_keys(address, database, erased, HoldKind.SUBJECT)
    if not any(can_name(key_type, subject) for _kind, key_type in keys):
        raise UnmatchedRequest(
            f"No record class of {database.name} that is erased on request can have this key, so "
            "the request would erase no record. It was not entered.",
            "Compare the key with the request's file. Keys are written as PostgreSQL shows them, "
            "numbers without leading zeros; docs/explanation/holds.md, *Keys and their types*.",
        )


def report_unmatched_holds(
    findings: StepFindings,
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    holds: RecordHolds,
) -> None:
    """Add a finding for each active legal hold whose value cannot match any key of the database.

    Args:
        findings: collector of the findings of the step.
        address: address of the database, with the read-only login.
        database: the database in the data map.
        rules: record classes of the database.
        holds: active holds that apply to the database.

    Raises:
        UsageError: the retention schedule does not fit the database, or a right is missing.
        ServiceError: the connection to the database was lost, or another session held a lock.
    """
    values: dict[Hold, set[str]] = {}
    for kind in RECORD_KINDS:
        for value, holds_on_key in holds.values[kind].items():
            for hold in holds_on_key:
                values.setdefault(hold, set()).add(value)
    if not values:
        return
    keys = _keys(address, database, rules)
    for hold in sorted(values, key=lambda hold: hold.id):
        own = split_key(hold.value)[0] == database.name
        is_relevant = own or any(kind is hold.kind for kind, _type in keys)
        if is_relevant and not _matches(keys, hold.kind, values[hold]):
            subject = f"hold {hold.id}"
            findings.subject_titles[subject] = _("Legal hold {id}", id=hold.id)
            findings.find(
                "retention.hold_keeps_nothing",
                Outcome.FAIL if own else Outcome.ATTENTION,
                _(
                    "Legal hold {id} protects no record in this database: the value that it "
                    "names cannot be a key of this database.",
                    id=hold.id,
                ),
                _(
                    "Compare the value of this legal hold with the case file. Ask the data "
                    "engineers to place a legal hold with the correct value, and then to "
                    "release this one."
                ),
                subject=subject,
                for_engineers=_(
                    "To limit a legal hold to one database, write the value in `./parcelseal "
                    "hold add` as `DATABASE/KEY`."
                ),
            )


def find_key_problems(
    pack: PolicyPack, database: MappedDatabase, connection: psycopg.Connection[Any]
) -> list[PackProblem]:
    """Find the keys in retention.yaml whose column type cannot match any legal hold.

    No record is read.

    Args:
        pack: the policy pack.
        database: the mapped database to check.
        connection: connection to this database, in autocommit.

    Raises:
        UsageError: the server is too old, or a right is missing.
        ServiceError: the connection to the database was lost, or another session held a lock.
    """
    indexes = {rule.record_class: index for index, rule in enumerate(pack.retention)}
    rules = pack.retention_of(database.name)
    if not rules:
        return []
    document = read_document(read_bytes(Path(pack.folder) / RETENTION, RETENTION), RETENTION)
    problems = []
    prepare_session(connection, database)
    with open_snapshot(connection, database):
        relations = read_relations(connection, database).by_collection
        for rule in rules:
            relation = relations.get(rule.collection)
            if relation is None:
                continue  # the drift check of the data map reports it
            loc = (indexes[rule.record_class], "keys")
            try:
                with connection.transaction():
                    types = read_key_types(connection, rule.keys, relation)
            except psycopg.errors.InsufficientPrivilege:
                continue  # the check of rights reports it, with the statement that grants it
            except psycopg.Error as error:
                message = f"the database does not understand a key (SQLSTATE {error.sqlstate})"
                problems.append(document.problem(loc, message))
                continue
            for kind, index, text in list_expressions(rule.keys):
                if reason := explain_unusable(kind, types[text]):
                    problems.append(document.problem((*loc, kind, index), ". ".join(reason)))
    return problems


def _keys(
    address: DatabaseAddress, database: MappedDatabase, rules: Sequence[RetentionRule]
) -> list[Key]:
    with address.connect(autocommit=True) as connection:
        prepare_session(connection, database)
        with open_snapshot(connection, database):
            return list(_read_keys(connection, database, rules))


def _read_keys(
    connection: psycopg.Connection[Any], database: MappedDatabase, rules: Sequence[RetentionRule]
) -> Iterator[Key]:
    relations = read_relations(connection, database)
    require_disposable(relations, [rule.collection for rule in rules])
    for rule in rules:
        relation = relations.by_collection[rule.collection]
        types = read_key_types(connection, rule.keys, relation)
        for kind, _index, text in list_expressions(rule.keys):
            yield kind, types[text]


def _matches(keys: Sequence[Key], kind: HoldKind, values: Collection[str]) -> bool:
    return any(
        key_type.canonical(value) is not None
        for own, key_type in keys
        if own is kind
        for value in values
    )


def require_matching_hold(answers: Sequence[bool], kind: HoldKind) -> None:
    """Refuse a legal hold whose value cannot match any key of the databases.

    Args:
        answers: for each database that was checked, whether one of its keys can have the value of
            the hold; True if the database could not be read. If the list is empty, the hold is
            accepted.
        kind: type of object that the hold names, such as a waybill.

    Raises:
        UsageError: at least one database was checked, and no key can have the value.
    """
    if answers and not any(answers):
        raise UsageError(
            f"No {kind} key of a record class can have this value, so the hold would protect no "
            "record. It was not placed.",
            "Compare the value with the file of the case, and write it as PostgreSQL shows it; see "
            "docs/explanation/holds.md, *Keys and their types*.",
        )


def count_on_hold(database: RetentionDatabase, hold: Hold) -> dict[str, int]:
    """Count the records to which a legal hold applies, by record class.

    Records are counted whether or not they have expired. Classes that have no key for the hold's
    type of object are left out.

    Args:
        database: database whose records are counted.
        hold: an active legal hold.

    Raises:
        UsageError: the retention schedule does not fit the database, or a right is missing.
        ServiceError: the connection to the database was lost, another session held a lock, or a
            statement took too long.
    """
    counts: dict[str, int] = {}
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        with open_snapshot(connection, database.mapped):
            graph = schedule_of(database, database.run.clock.now()).graph(connection)
            values = [
                value for active, value in holds_by_value(graph.holds) if active.id == hold.id
            ]
            for record_class in chain.from_iterable(graph.classes.values()):
                held = any_of([graph.held_by(record_class, hold, value) for value in values])
                if held != FALSE:
                    query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
                        record_class.relation.identifier, held
                    )
                    counts[record_class.name] = scalar(connection, query, {})
    return counts
