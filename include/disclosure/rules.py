"""The content of use.yaml: which customer information staff may request, and who approves it.

docs/reference/policy-pack/use.md explains every key. The SQL of the file is executed as it is
written. The author of the policy pack is therefore trusted as the author of a migration is.

Sources of the rules: a purpose for each access and no more than it needs, PIPL (2021-11-01)
articles 6 and 51(4); approval and record of each access to information on minors, Regulations on
the Protection of Minors Online (2024-01-01) article 36.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from include.disclosure.accesses.rules import AccessRules, check_accesses
from include.messages import Message
from include.policy.period import Period, PositivePeriod
from include.policy.retention import MaskKind
from include.policy.rules import (
    Identifier,
    Name,
    Rule,
    Sql,
    Text,
    Texts,
    Unit,
    require_items,
    translated_message,
)
from include.policy.section import Loc, PackNames, RuleSection, SectionRules, find_duplicates

CLAUSE_PURPOSE, CLAUSE_USE = "4.3", "5.3"
LARGEST_DURATION = 366  # days; a longer use is a rule of the application, not an extract

DisplayMask = MaskKind | Literal["show"]
"""How an extract shows a column unless the request names it as unmasked; ``show``: as it is."""


class FilterKind(StrEnum):
    """The kind of a column in the conditions of a request.

    Attributes:
        DATE: a range of days.
        NUMBER: a range of numbers.
        CODE: a list of values, such as a department or a status.
        KEY: a list of keys, which may be read from a file.
    """

    DATE = "date"
    NUMBER = "number"
    CODE = "code"
    KEY = "key"


class Roster(Rule):
    """The query that reads the employees, with their rights to request and to approve.

    Attributes:
        database: Mapped database that the query reads.
        sql: SELECT with one row per employee and these columns: ``person`` (account in Airflow),
            ``name``, ``mail``, ``department``, ``supervisor`` (account), and the booleans
            ``active`` (employed and not on leave), ``trained`` (valid training) and
            ``second_approver`` (may approve unmasked values and information on minors).
    """

    database: Name
    sql: Sql


class UsableCollection(Rule):
    """A collection from which staff may request an extract.

    Attributes:
        database: Mapped database of the collection.
        collection: Collection of the data map.
        subjects: Columns with the keys of the data subjects, such as sender and recipient of a
            waybill. The plan counts the different keys as people.
        minor: SQL condition over the record ``t`` that is true if a data subject is under 18.
            Without it, the plan states that records of minors were not counted, and each request
            needs the second approval.
        filters: Columns that the conditions of a request may use, each with its kind.
        masks: Columns of personal information that an extract shows, each with its mask. A column
            that is not personal is always shown as it is. A personal column without an entry is
            left empty unless the request names it as unmasked.
    """

    database: Name
    collection: Name
    subjects: Annotated[tuple[Name, ...], AfterValidator(require_items)]
    minor: Sql | None = None
    filters: Annotated[Mapping[Name, FilterKind], Field(min_length=1)]
    masks: Mapping[Name, DisplayMask] = {}


class UsePurpose(Rule):
    """A purpose of purposes.yaml for which staff may request information.

    Attributes:
        purpose: Purpose of purposes.yaml. A request may name only fields of this purpose.
        title: Name of the purpose in the request form.
        max_days: Longest time from the approval until the access ends, in days.
    """

    purpose: Identifier
    title: Texts
    max_days: Annotated[int, Field(ge=1, le=LARGEST_DURATION), Unit("days")]

    @property
    def message(self) -> Message:
        """Return the name of the purpose as a translatable message."""
        return translated_message(self.title)


class LoginRules(Rule):
    """Database logins as a form of delivery.

    Attributes:
        databases: Mapped databases in which a login may be requested. The workflow's own login
            needs ``CREATEROLE``, and on the database ``CREATE`` and ``CONNECT`` with the grant
            option (PostgreSQL 16 to 18).
        sessions: Largest number of simultaneous sessions of a login.
    """

    databases: Annotated[tuple[Name, ...], AfterValidator(require_items)]
    sessions: Annotated[int, Field(ge=1, le=20)] = 2


class UseRules(SectionRules):
    """Which customer information staff may request, who approves it, and when access ends.

    Attributes:
        connection: Id of the Airflow connection that reads the roster and the requested records. If
            this connection does not exist, the connections that the data maps name are used.
        source: Query that reads the employees.
        purposes: Purposes for which staff may request information.
        collections: Collections from which staff may request an extract.
        most_records: Largest number of records in one extract.
        response: Time within which each approver decides. No answer is a rejection.
        remind_before: Time before the end of the access at which the requester is reminded.
        confirm_within: Time after the end of the access within which the requester confirms that
            local copies are deleted. After this time, the missing confirmation is a finding.
        owner: Role of roles.yaml that is responsible for the use of customer information.
        logins: Where database logins may be requested. Without it, only files are delivered.
        accesses: Log of accesses to customer records and the approvals to compare it with. Without
            it, the report states that accesses were not compared.
    """

    connection: Text = "use_db"
    source: Annotated[Roster, Field(alias="roster")]
    purposes: Annotated[tuple[UsePurpose, ...], AfterValidator(require_items)]
    collections: Annotated[tuple[UsableCollection, ...], AfterValidator(require_items)]
    most_records: Annotated[int, Field(ge=1, le=10_000_000), Unit("records")] = 1_000_000
    response: PositivePeriod = Period.parse("PT24H")
    remind_before: PositivePeriod = Period.parse("PT24H")
    confirm_within: PositivePeriod = Period.parse("P3D")
    owner: Identifier
    logins: LoginRules | None = None
    accesses: AccessRules | None = None

    def purpose(self, purpose_id: str) -> UsePurpose | None:
        """Return the purpose with the given id, or None if staff may not request it."""
        return next((use for use in self.purposes if use.purpose == purpose_id), None)

    def usable(self, database: str, collection: str) -> UsableCollection | None:
        """Return the rule of a collection, or None if staff may not request its records."""
        return next(
            (
                usable
                for usable in self.collections
                if (usable.database, usable.collection) == (database, collection)
            ),
            None,
        )


def check_rules(rules: UseRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of use.yaml: unknown names and duplicates.

    Yields:
        The path of the faulty value in use.yaml, and the error message.
    """
    if rules.source.database not in pack.inventory:
        yield ("roster", "database"), f"the pack maps no database {rules.source.database!r}"
    if rules.owner not in pack.roles:
        yield ("owner",), f"roles.yaml has no role {rules.owner!r}"
    yield from find_duplicates("purposes", "purpose", [use.purpose for use in rules.purposes])
    names = [f"{usable.database}.{usable.collection}" for usable in rules.collections]
    yield from find_duplicates("collections", "collection", names)
    for number, usable in enumerate(rules.collections):
        yield from _check_collection(usable, number, pack)
    for number, database in enumerate(rules.logins.databases if rules.logins else ()):
        if database not in pack.inventory:
            yield ("logins", "databases", number), f"the pack maps no database {database!r}"
    if rules.accesses is not None:
        for path, message in check_accesses(rules.accesses, pack):
            yield ("accesses", *path), message


def _check_collection(
    usable: UsableCollection, number: int, pack: PackNames
) -> Iterator[tuple[Loc, str]]:
    path: Loc = ("collections", number)
    if usable.database not in pack.inventory:
        yield (*path, "database"), f"the pack maps no database {usable.database!r}"
        return
    if not pack.inventory.has_collection(usable.database, usable.collection):
        yield (*path, "collection"), f"{usable.database} has no collection {usable.collection!r}"
        return
    columns: list[tuple[Loc, str]] = [
        *((("subjects", at), name) for at, name in enumerate(usable.subjects)),
        *((("filters", name), name) for name in usable.filters),
        *((("masks", name), name) for name in usable.masks),
    ]
    for key, column in columns:
        if not pack.inventory.has_column(usable.database, usable.collection, column):
            yield (*path, *key), f"{usable.collection} has no column {column!r}"


USE = RuleSection("use.yaml", UseRules, check_rules, page="explanation/use.md")
