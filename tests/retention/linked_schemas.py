"""Schemas in which the data subject of a record is found through another record.

`PAGILA` is modelled on the sample database of that name: an address is found through the customer
that refers to it, and foreign keys require that the customer is deleted first. `FIDES` is modelled
on the example of the Fides project: a visit has the e-mail address of its customer and no foreign
key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import RetentionRule
from tests.retention.runner import NAME, RetentionRunner, rule
from tests.support.databases import migrated, temporary_database


@dataclass(frozen=True)
class Schema:
    """Tables, their data map and their record classes.

    Attributes:
        tables: SQL that creates the tables.
        keys: collection -> columns of its primary key.
        rules: record classes of the tables.
        personal: ``collection.column`` of keys that identify a person.
    """

    tables: str
    keys: Mapping[str, Sequence[str]]
    rules: Sequence[RetentionRule]
    personal: frozenset[str] = frozenset()

    def mapped(self) -> MappedDatabase:
        """Return the database of the data map that describes the tables."""
        return MappedDatabase(
            name=NAME,
            title=verbatim("Courier"),
            connection="customer_db",
            schema_name="public",
            rto=timedelta(hours=4),
            rpo=timedelta(days=1),
            collections={
                name: MappedCollection(
                    name=name,
                    schema_name="public",
                    table=name,
                    fields={
                        column: MappedField(
                            name=column,
                            primary_key=True,
                            categories=("user.contact.email",)
                            if f"{name}.{column}" in self.personal
                            else (),
                        )
                        for column in columns
                    },
                )
                for name, columns in self.keys.items()
            },
        )


def found_by(expression: str | Sequence[str], **more: Any) -> dict[str, Any]:
    """Return arguments of `rule` for a record class that is erased on request.

    Args:
        expression: key expression of the data subject.
        more: further arguments of `rule`.
    """
    return {"keys": {"subject": expression}, "on_request": True, **more}


ADDRESS_LINK = "(SELECT min(c.customer_id) FROM customer c WHERE c.address_id = t.address_id)"
PAGILA = Schema(
    """
    CREATE TABLE address (
        address_id integer PRIMARY KEY, address text, phone text, at timestamptz);
    CREATE TABLE store (
        store_id integer PRIMARY KEY, address_id integer NOT NULL REFERENCES address);
    CREATE TABLE customer (
        customer_id integer PRIMARY KEY, name text, at timestamptz,
        address_id integer NOT NULL REFERENCES address);
    CREATE TABLE rental (
        rental_id integer PRIMARY KEY, at timestamptz,
        customer_id integer NOT NULL REFERENCES customer);
    CREATE TABLE payment (
        payment_id integer, paid_at timestamptz, at timestamptz, rental_id integer,
        customer_id integer, PRIMARY KEY (payment_id, paid_at)) PARTITION BY RANGE (paid_at);
    CREATE TABLE payment_2025 PARTITION OF payment
        FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    """,
    {
        "address": ["address_id"],
        "store": ["store_id"],
        "customer": ["customer_id"],
        "rental": ["rental_id"],
        "payment": ["payment_id", "paid_at"],
    },
    (
        rule("customer", **found_by("t.customer_id")),
        rule("address", **found_by(ADDRESS_LINK)),
        rule("rental", **found_by("t.customer_id")),
        rule(
            "payment",
            **found_by(
                "(SELECT r.customer_id FROM rental r WHERE r.rental_id = t.rental_id)",
                action="drop_partition",
            ),
        ),
    ),
)
VISIT_LINK = "(SELECT c.id FROM customer c WHERE c.email = t.email)"
FIDES = Schema(
    """
    CREATE TABLE customer (id integer PRIMARY KEY, email text, name text, at timestamptz);
    CREATE TABLE visit (
        email text, last_visit timestamptz, at timestamptz, PRIMARY KEY (email, last_visit));
    CREATE TABLE login (
        id integer PRIMARY KEY, customer_id integer REFERENCES customer ON DELETE SET NULL,
        at timestamptz);
    """,
    {"customer": ["id"], "visit": ["email", "last_visit"], "login": ["id"]},
    (
        rule("customer", **found_by("t.id")),
        rule("visit", **found_by(VISIT_LINK)),
        rule("login", **found_by("t.customer_id")),
    ),
    frozenset({"visit.email"}),
)

LINKED = ("client", "home", "letter")
LINKED_TABLES = """
CREATE TABLE IF NOT EXISTS home (id integer PRIMARY KEY, at timestamptz, who text);
CREATE TABLE IF NOT EXISTS client (
    id integer PRIMARY KEY, home integer CONSTRAINT client_home REFERENCES home, mail integer,
    at timestamptz, who uuid);
CREATE TABLE IF NOT EXISTS letter (
    id integer PRIMARY KEY, mail integer, at timestamptz, who text);
"""
"""Tables for the tests in random order. A home is found through the client who refers to it, so the
client is deleted first. A letter is found through the client with the same mail address. The key of
the data subject is a text for a home, and a UUID for the other tables."""
LINKED_RULES: tuple[RetentionRule, ...] = (
    rule("client", on_request=True),
    rule("home", **found_by("(SELECT min(c.who::text) FROM client c WHERE c.home = t.id)")),
    rule(
        "letter", **found_by("(SELECT min(c.who::text)::uuid FROM client c WHERE c.mail = t.mail)")
    ),
)


@contextmanager
def linked_runner(
    server: EmbeddedPostgres, schema: Schema, *more_sql: str
) -> Iterator[RetentionRunner]:
    """Create a runner with another schema, and drop its databases afterwards.

    Args:
        server: server of both databases.
        schema: schema of the mapped database.
        more_sql: further statements for the mapped database.
    """
    with (
        temporary_database(server) as source,
        temporary_database(server, migrated(server)) as state,
    ):
        runner = RetentionRunner(
            server.conninfo(source),
            server.conninfo(state),
            rules=schema.rules,
            database=schema.mapped(),
        )
        for statements in (schema.tables, *more_sql):
            runner.sql(statements)
        yield runner
