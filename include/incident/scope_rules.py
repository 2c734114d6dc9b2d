"""incident.yaml, ``scope``: where the data subjects of a database are, and what there is of them.

SQL here is that of the pack's author, who is trusted as the author of a migration is;
docs/incidents.md explains every key.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from include.policy.rules import Name, Rule, Sql, Text, some


class Lookup(Rule):
    """A name that stands in another table: the row has its key there.

    Said like this and not as a subquery, so that PostgreSQL looks each name up once and not for
    every row of a log.

    Attributes:
        column: of the row.
        collection: with the names.
        key: column there that equals the row's.
        name: column there with the name, as people write it.
    """

    column: Name
    collection: Name
    key: Name
    name: Name


Named = Sql | Lookup
"""A name as people write it: an SQL expression over the row, or where it is looked up."""


class Subject(Rule):
    """Where the data subjects of a database are.

    Attributes:
        collection: one row a person, named ``s`` in conditions.
        key: column with the person's key.
        minor: SQL condition over ``s``: under 14 at ``:moment``; None where the age is not known.
        department: that answers for the record, over ``s``.
        mail: column with an address for notices; None where people are told by other means.
    """

    collection: Name
    key: Name
    minor: Sql | None = None
    department: Named | None = None
    mail: Name | None = None


class Records(Rule):
    """Records about data subjects.

    Attributes:
        collection: rows, named ``r`` in expressions.
        subjects: SQL expressions over ``r`` that give the keys of those whom a row is about.
        at: SQL expression over ``r``: when it was made; None where rows have no moment.
        department: over ``r``; the subject's where it has none.
        named: SQL expressions over ``r``: what people call such a record when they list some, each
            of which will do; none where such records are not listed.
    """

    collection: Name
    subjects: Annotated[tuple[Sql, ...], AfterValidator(some)]
    at: Sql | None = None
    department: Named | None = None
    named: tuple[Sql, ...] = ()


class AccessLog(Rule):
    """The log of accesses: whose records an account opened, and what is kept as evidence.

    Attributes:
        collection: rows, named ``a`` in expressions.
        subject: SQL expression over ``a``: key of the data subject.
        account: as people write it, over ``a``.
        at: column with the moment.
        columns: of the evidence extract; keys and moments, nothing that says more of a customer.
    """

    collection: Name
    subject: Sql
    account: Named
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(some)]


class ShareLog(Rule):
    """The log of what partners were given.

    Attributes:
        collection: rows, named ``g`` in expressions.
        subject: SQL expression over ``g``: key of the data subject.
        partner: SQL expression over ``g``: the partner's number, as text.
        at: column with the moment.
        columns: of the evidence extract; keys and moments, nothing that says more of a customer.
    """

    collection: Name
    subject: Sql
    partner: Sql
    at: Name
    columns: Annotated[tuple[Name, ...], AfterValidator(some)]


class ScopeRule(Rule):
    """How what is affected in one database is counted.

    Attributes:
        database: of the data map.
        connection: id of the Airflow connection that reads it for incidents, where it is not that
            of all: one connection is one database.
        subject: the data subjects.
        records: what there is about them, each collection once.
        access: the log of accesses; None where there is none.
        shares: the log of sharing; None where there is none.
    """

    database: Name
    connection: Text | None = None
    subject: Subject
    records: Annotated[tuple[Records, ...], AfterValidator(some)]
    access: AccessLog | None = None
    shares: ShareLog | None = None
