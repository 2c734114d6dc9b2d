"""The role that disposes of expired records may do just that."""

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
from include.workplace import ROOT
from tests.sample_company.conftest import AS_OF

RULES = {one.record_class: one for one in load_pack(SHIPPED).retention}

GRANTS = ROOT / "include/retention/sample_grants.sql"


@pytest.fixture(scope="module")
def role(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A session of courier_retention on a small sample; nothing is ever committed."""
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
        with psycopg.connect(postgres.conninfo("grants", "courier_retention", "x")) as opened:
            yield opened
        admin.execute("DROP DATABASE grants WITH (FORCE)")
        admin.execute("DROP ROLE courier_retention, courier_owner")


@pytest.fixture
def session(role: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The role's session, rolled back after the test."""
    yield role
    role.rollback()


def expressions(rule: RetentionRule) -> Iterator[str]:
    """What a class says in SQL or by column, as values over the record."""
    if isinstance(rule.clock, SqlClock):
        yield rule.clock.sql
    else:
        yield from (f"t.{one}" for one in rule.clock)
    yield from (*rule.keys.subject, *rule.keys.waybill, *rule.keys.case)
    yield from (f"t.{one}" for one in rule.mask)
    if rule.suspended:
        yield rule.suspended.where


@pytest.mark.parametrize("name", RULES)
def test_it_reads_what_the_schedule_says_of_a_class(session: psycopg.Connection, name: str) -> None:
    """Clock, keys, masked fields and what suspends."""
    rule = RULES[name]
    for one in expressions(rule):
        session.execute(f"SELECT ({one})::text FROM {rule.collection} t".encode())


@pytest.mark.parametrize("name", [one.record_class for one in RULES.values() if one.deletes])
def test_it_deletes_records_of_every_class(session: psycopg.Connection, name: str) -> None:
    """By its clock."""
    rule = RULES[name]
    clock = next(expressions(rule))
    # Rights are looked at for no record too, and no reference stands in the way
    session.execute(f"DELETE FROM {rule.collection} t WHERE ({clock}) IS NULL AND false".encode())


def test_what_the_database_sets_to_null_needs_no_right(session: psycopg.Connection) -> None:
    """Waybills lose their address although the role may not change that column."""
    session.execute("UPDATE customer SET default_address_id = NULL")
    assert session.execute("DELETE FROM address").rowcount > 0


def test_it_masks_and_detaches(session: psycopg.Connection) -> None:
    """Only the columns that the schedule names."""
    mask = ", ".join(f"{one} = '**'" for one in RULES["waybill_contact"].mask)
    session.execute(f"UPDATE waybill SET {mask}, masked_at = now()".encode())
    session.execute("UPDATE complaint SET waybill_id = NULL, waybill_created_at = NULL")
    session.execute("UPDATE customer SET default_address_id = NULL")


def test_it_drops_a_partition_as_the_owner_only(session: psycopg.Connection) -> None:
    """By SET LOCAL ROLE: as itself it cannot."""
    partition = sql.Identifier("waybill_2026_04")  # of the next month: nothing refers to it yet
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
def test_it_may_do_nothing_else(session: psycopg.Connection, statement: str) -> None:
    """Neither read a customer's data that is not masked, nor move a clock."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(statement.encode())
