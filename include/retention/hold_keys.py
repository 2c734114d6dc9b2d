"""Check by key types whether legal holds and erasure requests match records, and how many."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.holds.keys import split
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
from include.retention.planning.counting import each_hold
from include.retention.planning.graph import FALSE
from include.retention.planning.schedule import schedule_of
from include.retention.postgres.key_types import (
    KeyType,
    UnusableKey,
    each_expression,
    may_name,
    read_key_types,
    why_unusable,
)
from include.retention.postgres.relations import read_relations, require
from include.retention.postgres.session import one_view, prepare
from include.services.database import DatabaseAddress, scalar
from include.services.errors import UsageError

Key = tuple[HoldKind, KeyType]


class Unerasable(UsageError):
    """No record of a database can have the key of a request."""


def can_keep(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    kind: HoldKind,
    values: Collection[str],
) -> bool:
    """Return whether a record of a database could have a key that equals one of some values.

    Args:
        address: address of the database, with the reader's login.
        database: the database in the data map.
        rules: its record classes.
        kind: kind of the hold.
        values: possible keys of the record, as `on_records` reads them from the hold.

    Raises:
        UnusableKey: a key of this kind has a type that no hold can name.
        UsageError: the schedule does not fit the database, or a right is missing.
        ServiceError: the database was lost, or a lock was not free.
    """
    return _matches(_usable_keys(address, database, rules, kind), kind, values)


def _usable_keys(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    kind: HoldKind,
) -> list[Key]:
    """Return the keys of a kind; raise UnusableKey if one has a type that no hold can name."""
    keys = [key for key in _keys(address, database, rules) if key[0] is kind]
    for _kind, key_type in keys:
        if reason := why_unusable(kind, key_type):
            raise UnusableKey(f"In {database.name}, {reason[0]}.", reason[1])
    return keys


def require_erasable(
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    subject: str,
) -> None:
    """Refuse a request if no record that is erased on request can have its key.

    Args:
        address: address of the database, with the reader's login.
        database: the database in the data map.
        rules: its record classes.
        subject: key of the data subject, as written in the request.

    Raises:
        UnusableKey: a key of data subjects has a type that no request can name.
        UsageError: no key can equal the subject, the schedule does not fit the database, or a right
            is missing.
        ServiceError: the database was lost, or a lock was not free.
    """
    erased = [rule for rule in rules if rule.on_request]
    keys = _usable_keys(address, database, erased, HoldKind.SUBJECT)
    if not any(may_name(key_type, subject) for _kind, key_type in keys):
        raise Unerasable(
            f"No record class of {database.name} that is erased on request can have this key: the "
            "request would erase nothing. It was not entered.",
            "Compare the key with the request's file. Keys are written as PostgreSQL shows them, "
            "numbers without leading zeros; docs/holds.md, *Keys and their types*.",
        )


def find_unmatched(
    findings: StepFindings,
    address: DatabaseAddress,
    database: MappedDatabase,
    rules: Sequence[RetentionRule],
    holds: RecordHolds,
) -> None:
    """Add a finding for each active hold whose value no key of the database can have.

    Args:
        findings: findings of the step.
        address: address of the database, with the reader's login.
        database: the database in the data map.
        rules: its record classes.
        holds: active holds that apply to the database.

    Raises:
        UsageError: the schedule does not fit the database, or a right is missing.
        ServiceError: the database was lost, or a lock was not free.
    """
    values: dict[Hold, set[str]] = {}
    for kind in RECORD_KINDS:
        for value, each in holds.values[kind].items():
            for hold in each:
                values.setdefault(hold, set()).add(value)
    if not values:
        return
    keys = _keys(address, database, rules)
    for hold in sorted(values, key=lambda hold: hold.id):
        own = split(hold.value)[0] == database.name
        is_relevant = own or any(kind is hold.kind for kind, _type in keys)
        if is_relevant and not _matches(keys, hold.kind, values[hold]):
            findings.find(
                "retention.hold_keeps_nothing",
                Outcome.FAIL if own else Outcome.ATTENTION,
                _(
                    "Legal hold {id} keeps no record: no key of this database can have its value.",
                    id=hold.id,
                ),
                _(
                    "Compare its value with the file of the case. Place a hold with the right "
                    "value, for one database as DATABASE/KEY, and then release this one."
                ),
                subject=f"hold {hold.id}",
            )


def key_problems(
    pack: PolicyPack, database: MappedDatabase, connection: psycopg.Connection[Any]
) -> list[PackProblem]:
    """Return the keys of retention.yaml whose type cannot match any hold.

    Args:
        pack: the policy pack.
        database: the mapped database to check.
        connection: to this database, in autocommit; no row is read.

    Raises:
        UsageError: the server is too old, or a right is missing.
        ServiceError: the database was lost, or a lock was not free.
    """
    places = {rule.record_class: at for at, rule in enumerate(pack.retention)}
    rules = pack.retention_of(database.name)
    if not rules:
        return []
    document = read_document(read_bytes(Path(pack.folder) / RETENTION, RETENTION), RETENTION)
    problems = []
    prepare(connection, database)
    with one_view(connection, database):
        relations = read_relations(connection, database).by_collection
        for rule in rules:
            relation = relations.get(rule.collection)
            if relation is None:
                continue  # drift of the data map
            loc = (places[rule.record_class], "keys")
            try:
                with connection.transaction():
                    types = read_key_types(connection, rule.keys, relation)
            except psycopg.errors.InsufficientPrivilege:
                continue  # the check of rights reports it, with the statement that grants it
            except psycopg.Error as error:
                message = f"the database does not understand a key (SQLSTATE {error.sqlstate})"
                problems.append(document.problem(loc, message))
                continue
            for kind, place, text in each_expression(rule.keys):
                if reason := why_unusable(kind, types[text]):
                    problems.append(document.problem((*loc, kind, place), ". ".join(reason)))
    return problems


def _keys(
    address: DatabaseAddress, database: MappedDatabase, rules: Sequence[RetentionRule]
) -> list[Key]:
    with address.connect(autocommit=True) as connection:
        prepare(connection, database)
        with one_view(connection, database):
            return list(_read_keys(connection, database, rules))


def _read_keys(
    connection: psycopg.Connection[Any], database: MappedDatabase, rules: Sequence[RetentionRule]
) -> Iterator[Key]:
    relations = read_relations(connection, database)
    require(relations, [rule.collection for rule in rules])
    for rule in rules:
        relation = relations.by_collection[rule.collection]
        types = read_key_types(connection, rule.keys, relation)
        for kind, _place, text in each_expression(rule.keys):
            yield kind, types[text]


def _matches(keys: Sequence[Key], kind: HoldKind, values: Collection[str]) -> bool:
    return any(
        key_type.canonical(value) is not None
        for own, key_type in keys
        if own is kind
        for value in values
    )


def require_match(answers: Sequence[bool], kind: HoldKind) -> None:
    """Refuse a hold whose value fits no key of the databases that could be read.

    Args:
        answers: for each of these databases, whether a key can have the value.
        kind: kind of the hold.

    Raises:
        UsageError: no database can have the value.
    """
    if answers and not any(answers):
        raise UsageError(
            f"No {kind} key of a record class can have this value: the hold would keep nothing. It "
            "was not placed.",
            "Compare the value with the file of the case. Keys are written as PostgreSQL shows "
            "them; docs/holds.md, *Keys and their types*.",
        )


def count_held(database: RetentionDatabase, hold: Hold) -> dict[str, int]:
    """Count the records of each record class that a hold is on, expired or not.

    Classes whose records are not found by a hold of its kind are left out.

    Args:
        database: a mapped database.
        hold: that counts.

    Raises:
        UsageError: the schedule does not fit the database, or a right is missing.
        ServiceError: the database was lost, a lock was not free, or a statement took too long.
    """
    counts: dict[str, int] = {}
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        with one_view(connection, database.mapped):
            graph = schedule_of(database, database.run.clock.now()).graph(connection)
            values = [value for active, value in each_hold(graph.holds) if active.id == hold.id]
            for record_class in chain.from_iterable(graph.classes.values()):
                held = any_of([graph.held_by(record_class, hold, value) for value in values])
                if held != FALSE:
                    query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
                        record_class.relation.identifier, held
                    )
                    counts[record_class.name] = scalar(connection, query, {})
    return counts
