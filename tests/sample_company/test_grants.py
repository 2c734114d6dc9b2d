"""Tests of the rights of the database role that disposes of expired records."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.retention import RetentionRule, SqlClock
from include.registry import load_pack
from include.sample_company import load
from include.sample_company.load import statements
from include.service_container import ROOT
from tests.sample_company.conftest import AS_OF

RULES = {rule.record_class: rule for rule in load_pack(SHIPPED).retention}

GRANTS = ROOT / "include/retention/sample_grants.sql"


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A session of the role courier_retention on a small sample. Tests do not commit."""
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        for statement in (
            "CREATE ROLE courier_owner LOGIN PASSWORD 'x'",
            "CREATE ROLE courier_retention LOGIN PASSWORD 'x'",
            "GRANT courier_owner TO courier_retention WITH INHERIT FALSE, SET TRUE",
            "CREATE DATABASE grants OWNER courier_owner",
        ):
            admin.execute(statement)
        with psycopg.connect(postgres.conninfo("grants", "courier_owner", "x")) as owner:
            load(owner, customers=60, as_of=AS_OF)
            for statement in statements(GRANTS):
                owner.execute(statement)
        with psycopg.connect(postgres.conninfo("grants", "courier_retention", "x")) as connection:
            yield connection
        admin.execute("DROP DATABASE grants WITH (FORCE)")
        admin.execute("DROP ROLE courier_retention, courier_owner")


@pytest.fixture
def session(role: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The role's session, rolled back after the test."""
    yield role
    role.rollback()


def expressions(rule: RetentionRule) -> Iterator[str]:
    """Yield the SQL expressions of a record class.

    They are the time from which the retention period counts, the keys, the masked columns, and the
    condition that suspends the deletion.
    """
    if isinstance(rule.clock, SqlClock):
        yield rule.clock.sql
    else:
        yield from (f"t.{column}" for column in rule.clock)
    yield from (*rule.keys.subject, *rule.keys.waybill, *rule.keys.case)
    yield from (f"t.{column}" for column in rule.mask)
    if rule.suspended:
        yield rule.suspended.where


@pytest.mark.parametrize("name", RULES)
def test_retention_role_can_evaluate_the_expressions_of_every_record_class(
    session: psycopg.Connection, name: str
) -> None:
    """A run evaluates these expressions to find and identify expired records."""
    rule = RULES[name]
    for expression in expressions(rule):
        session.execute(f"SELECT ({expression})::text FROM {rule.collection} t".encode())


@pytest.mark.parametrize("name", [rule.record_class for rule in RULES.values() if rule.deletes])
def test_retention_role_can_delete_records_of_every_record_class(
    session: psycopg.Connection, name: str
) -> None:
    """The condition uses the column from which the retention period of the class counts."""
    rule = RULES[name]
    clock = next(expressions(rule))
    # PostgreSQL checks rights even if no record matches; without records no reference prevents it
    session.execute(f"DELETE FROM {rule.collection} t WHERE ({clock}) IS NULL AND false".encode())


def test_retention_role_can_delete_addresses_although_it_may_not_update_the_referring_column(
    session: psycopg.Connection,
) -> None:
    """The role may not change the address column of waybills. The foreign key sets it to null."""
    session.execute("UPDATE customer SET default_address_id = NULL")
    assert session.execute("DELETE FROM address").rowcount > 0


def test_retention_role_can_mask_records_and_remove_references(session: psycopg.Connection) -> None:
    """The role may change only the columns that the retention schedule names."""
    mask = ", ".join(f"{column} = '**'" for column in RULES["waybill_contact"].mask)
    session.execute(f"UPDATE waybill SET {mask}, masked_at = now()".encode())
    session.execute("UPDATE complaint SET waybill_id = NULL, waybill_created_at = NULL")
    session.execute("UPDATE customer SET default_address_id = NULL")


def test_retention_role_can_drop_partition_only_after_set_role_to_owner(
    session: psycopg.Connection,
) -> None:
    """The role has to use SET LOCAL ROLE before it drops a partition."""
    partition = sql.Identifier("waybill_2026_04")  # the next month has no referencing records
    with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
        session.execute(sql.SQL("DROP TABLE {}").format(partition))
    session.execute("SET LOCAL ROLE courier_owner")
    session.execute(sql.SQL("ALTER TABLE waybill DETACH PARTITION {}").format(partition))
    session.execute(sql.SQL("DROP TABLE {}").format(partition))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id_number FROM customer",
        "SELECT name FROM customer",
        "SELECT street FROM address",
        "SELECT signature FROM delivery_proof",
        "SELECT description FROM complaint",
        "SELECT raw FROM intake_record",
        "SELECT phone FROM employee",
        "SELECT 1 FROM partner",
        "UPDATE waybill SET number = ''",
        "UPDATE customer SET closed_at = now()",
        "UPDATE complaint SET closed_at = now()",
        "INSERT INTO access_log DEFAULT VALUES",
        "DELETE FROM employee",
        "DELETE FROM partner",
        "TRUNCATE access_log",
    ],
)
def test_retention_role_cannot_read_or_change_data_that_disposition_does_not_need(
    session: psycopg.Connection, statement: str
) -> None:
    """The role cannot read other customer data or change the start of a retention period."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(statement.encode())
