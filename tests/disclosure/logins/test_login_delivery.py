"""A login is delivered only if it reads exactly the approved records and columns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.disclosure import delivery, grants
from include.disclosure.delivery import DELIVER, deliver_extract
from include.disclosure.grants import EndReason
from include.disclosure.logins import create
from include.disclosure.opening import open_extract
from include.disclosure.use_check import CHECK
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.services.errors import ControlFailed, UsageError
from tests.disclosure.logins.login_fixtures import FIELDS, delivered, log_in, traces
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import RULES, UseCompany, erase, new_pack


def test_login_reads_exactly_the_approved_records_and_masked_columns(company: UseCompany) -> None:
    company.add_customers(2, status="closed")
    number = delivered(company)
    with log_in(company, number) as session:
        cursor = session.execute("SELECT * FROM customer ORDER BY customer_id")
        rows = cursor.fetchall()
        assert [column.name for column in cursor.description or ()] == FIELDS
    assert rows == company.execute(
        "SELECT customer_id, left(name, 1) || '**', '138******' || right(phone, 2), weight "
        "FROM customer WHERE status = 'active' ORDER BY customer_id"
    )
    assert grant_of(company, number).records == len(rows) == 5


def test_login_and_its_view_end_at_the_end_of_the_access(company: UseCompany) -> None:
    number = delivered(company)
    grant = grant_of(company, number)
    [(until, definition)] = company.execute(
        "SELECT rolvaliduntil, pg_get_viewdef(%s::regclass) FROM pg_roles WHERE rolname = %s",
        f"{grant.object_key}.customer",
        grant.object_key,
    )
    end = definition.split("clock_timestamp() < ")[1].split("::")[0]
    assert company.execute(f"SELECT {end}::timestamptz") == [(until,)]
    assert until == grant.expires_at


def test_login_reads_records_of_uploaded_keys_only(company: UseCompany) -> None:
    number = delivered(company, keys=frozenset({"2", "4", "99"}))
    with log_in(company, number) as session:
        rows = session.execute("SELECT customer_id FROM customer ORDER BY 1").fetchall()
    assert rows == [(2,), (4,)]


def test_login_reads_no_record_that_matches_the_selection_later(company: UseCompany) -> None:
    number = delivered(company)
    company.add_customers(3)
    with log_in(company, number) as session:
        assert session.execute("SELECT count(*) FROM customer").fetchone() == (5,)


def test_login_reads_no_record_of_person_with_erasure_request(company: UseCompany) -> None:
    erase(company, "3")
    number = delivered(company)
    with log_in(company, number) as session:
        rows = session.execute("SELECT customer_id FROM customer ORDER BY 1").fetchall()
    assert rows == [(1,), (2,), (4,), (5,)]


def test_login_works_after_the_table_was_renamed(company: UseCompany) -> None:
    number = delivered(company)
    company.execute("ALTER TABLE customer RENAME TO client")
    try:
        with log_in(company, number) as session:
            assert session.execute("SELECT count(*) FROM customer").fetchone() == (5,)
        company.clock.at += timedelta(days=4)
        company.expire()
        assert traces(company) == []
    finally:
        company.execute("ALTER TABLE client RENAME TO customer")


def test_view_of_login_is_empty_from_the_end_on_even_in_an_open_transaction(
    company: UseCompany,
) -> None:
    number = delivered(company)
    grant = grant_of(company, number)
    name = f"{grant.object_key}.customer"
    [(definition, soon)] = company.execute(
        "SELECT pg_get_viewdef(%s::regclass), quote_literal(clock_timestamp() + '2 s')", name
    )
    end = definition.split("clock_timestamp() < ")[1].split("::")[0]
    company.execute(
        f"CREATE OR REPLACE VIEW {name} WITH (security_barrier) AS {definition.replace(end, soon)}"
    )
    with log_in(company, number) as session:
        session.autocommit = False
        assert session.execute("SELECT count(*) FROM customer").fetchone() == (5,)
        session.execute("SELECT pg_sleep(2)")
        assert session.execute("SELECT count(*) FROM customer").fetchone() == (0,)


def test_expired_login_cannot_log_in(company: UseCompany) -> None:
    number = delivered(company)
    company.execute(f"ALTER ROLE {grant_of(company, number).object_key} VALID UNTIL 'yesterday'")
    with pytest.raises(psycopg.OperationalError):
        log_in(company, number)


def test_login_opens_at_most_the_sessions_of_the_rules(company: UseCompany) -> None:
    number = delivered(company)
    with (
        log_in(company, number),
        log_in(company, number),
        pytest.raises(psycopg.OperationalError, match="too many connections"),
    ):
        log_in(company, number)


def test_deliver_removes_login_if_access_ended_meanwhile(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = approved(company, form="login")
    create = delivery._create_login

    def end_then_create(*arguments: Any) -> Any:
        with company.state.begin() as conn:
            grants.end_access(conn, number, EndReason.ENDED_BY_PERSON, company.clock.now())
        return create(*arguments)

    monkeypatch.setattr(delivery, "_create_login", end_then_create)
    with pytest.raises(ControlFailed, match="ended while it was delivered"):
        deliver_extract(run.context, StepFindings("deliver", "5.3"))
    assert traces(company) == []


PATHS = {
    "GRANT SELECT ON roster TO PUBLIC": "REVOKE SELECT ON roster FROM PUBLIC",
    "GRANT SELECT (person) ON roster TO PUBLIC": "REVOKE SELECT (person) ON roster FROM PUBLIC",
    "GRANT TRUNCATE ON roster TO PUBLIC": "REVOKE TRUNCATE ON roster FROM PUBLIC",
    "CREATE FUNCTION spy() RETURNS text LANGUAGE sql SECURITY DEFINER "
    "AS 'SELECT max(id_number) FROM public.customer'": "DROP FUNCTION spy()",
    "CREATE VIEW spy AS SELECT * FROM customer; GRANT SELECT ON spy TO PUBLIC": "DROP VIEW spy",
    "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "AS 'BEGIN RETURN NEW; END'": "DROP FUNCTION spy()",
    "GRANT CREATE ON SCHEMA public TO PUBLIC": "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "CREATE SEQUENCE spy; GRANT ALL ON SEQUENCE spy TO PUBLIC": "DROP SEQUENCE spy",
    "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC": "REVOKE EXECUTE ON FUNCTION "
    "pg_read_file(text) FROM PUBLIC",
    "GRANT SELECT ON pg_statistic TO PUBLIC": "REVOKE SELECT ON pg_statistic FROM PUBLIC",
    "SELECT lo_create(4711); GRANT SELECT ON LARGE OBJECT 4711 TO PUBLIC": "SELECT lo_unlink(4711)",
    "CREATE FOREIGN DATA WRAPPER spy; CREATE SERVER spy FOREIGN DATA WRAPPER spy; "
    "GRANT USAGE ON FOREIGN SERVER spy TO PUBLIC": "DROP FOREIGN DATA WRAPPER spy CASCADE",
}


@pytest.mark.parametrize("path", PATHS)
def test_deliver_refuses_login_where_everybody_has_other_rights(
    company: UseCompany, path: str
) -> None:
    run, _number = approved(company, form="login")
    with psycopg.connect(company.source, autocommit=True) as admin:
        admin.execute(path)  # type: ignore[call-overload] # fixed texts
        try:
            with pytest.raises(UsageError, match="rights of everybody"):
                deliver_extract(run.context, StepFindings("deliver", "5.3"))
        finally:
            admin.execute(PATHS[path])  # type: ignore[call-overload] # fixed texts
    assert traces(company) == []


@pytest.mark.parametrize(
    ("revoke", "restore"),
    [
        ("ALTER ROLE use_owner NOCREATEROLE", "ALTER ROLE use_owner CREATEROLE"),
        ("REVOKE CREATE ON {} FROM use_owner", "GRANT CREATE ON {} TO use_owner"),
        (
            "REVOKE GRANT OPTION FOR CONNECT ON {} FROM use_owner",
            "GRANT CONNECT ON {} TO use_owner WITH GRANT OPTION",
        ),
    ],
)
def test_deliver_refuses_login_if_the_login_of_the_workflow_lacks_a_right(
    company: UseCompany, revoke: str, restore: str
) -> None:
    run, _number = approved(company, form="login")
    [(name,)] = company.execute("SELECT 'DATABASE ' || quote_ident(current_database())")
    company.execute(revoke.format(name))
    try:
        with pytest.raises(UsageError, match=r"(does|may) not allow"):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    finally:
        company.execute(restore.format(name))
    assert traces(company) == []


def test_deliver_refuses_login_for_old_server_and_for_table_without_primary_key(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _number = approved(company, form="login")
    monkeypatch.setattr(create, "OLDEST_SERVER", 990_000)
    with pytest.raises(UsageError, match="older than PostgreSQL 16"):
        deliver_extract(run.context, StepFindings("deliver", "5.3"))
    shop = company.pack.databases["shop"]
    customer = shop.collections["customer"]
    fields = {
        name: field.model_copy(update={"primary_key": False})
        for name, field in customer.fields.items()
    }
    keyless = customer.model_copy(update={"fields": fields})
    without = shop.model_copy(update={"collections": {"customer": keyless}})
    company.pack = company.pack.model_copy(update={"databases": {"shop": without}})
    with pytest.raises(UsageError, match="no primary key"):
        company.request(form="login")


def test_deliver_refuses_login_if_no_index_keeps_the_keys_unique(company: UseCompany) -> None:
    run, _number = approved(company, form="login")
    company.execute("ALTER TABLE customer DROP CONSTRAINT customer_pkey")
    try:
        with pytest.raises(UsageError, match="no unique index"):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    finally:
        company.execute("ALTER TABLE customer ADD PRIMARY KEY (customer_id)")
    assert traces(company) == []


def test_approved_keys_are_not_published_by_publication_for_all_tables(company: UseCompany) -> None:
    """A subscriber would stop at changes of a table that it does not have."""
    company.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    try:
        number = delivered(company)
        published = company.execute(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = 'everything'"
        )
    finally:
        company.execute("DROP PUBLICATION everything")
    assert ("public", "customer") in published
    assert (grant_of(company, number).object_key, "approved_key") not in published


def test_deliver_is_refused_by_event_trigger_and_creates_nothing(company: UseCompany) -> None:
    run, _number = approved(company, form="login")
    company.execute(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'no new objects'; END $$"
    )
    company.execute("CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION refuse()")
    try:
        with pytest.raises(UsageError, match="event trigger"):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    finally:
        company.execute("DROP EVENT TRIGGER refuse")
        company.execute("DROP FUNCTION refuse()")
    assert traces(company) == []


def test_deliver_refuses_login_that_ended_by_the_clock_of_the_server(company: UseCompany) -> None:
    company.clock.at -= timedelta(days=10)
    run, _number = approved(company, form="login")
    with pytest.raises(UsageError, match="clock of the database server"):
        deliver_extract(run.context, StepFindings("deliver", "5.3"))
    assert traces(company) == []


def test_delivery_reports_other_databases_of_the_server(company: UseCompany) -> None:
    company.execute("CREATE DATABASE open_to_all")
    try:
        run, _number = approved(company, form="login")
        record = run.step(DELIVER)
    finally:
        company.execute("DROP DATABASE open_to_all WITH (FORCE)")
    codes = {finding.code: finding for finding in record.findings}
    assert "open_to_all" in str(codes["use.other_databases"].for_engineers)


def test_verification_fails_if_login_has_got_other_rights_since(company: UseCompany) -> None:
    run, number = approved(company, form="login")
    run.step(DELIVER)
    company.execute(f"GRANT SELECT ON roster TO {grant_of(company, number).object_key}")
    record = run.verify()
    assert [finding.code for finding in record.findings] == ["use.login_not_confined"]


def test_check_refuses_login_without_rules_for_logins(company: UseCompany) -> None:
    company.pack = new_pack(RULES)
    with pytest.raises(UsageError, match="No database login may be requested"):
        company.request(form="login")


def test_opened_file_of_login_names_server_user_and_view_but_no_password(
    company: UseCompany,
) -> None:
    number = delivered(company)
    opened = open_extract(
        company.state, company.store, company.clock, number, person="clerk", channel="command"
    )
    text = b"".join(opened.pieces).decode()
    assert opened.file_name == f"login-{number}.txt"
    assert opened.size == len(text.encode())
    for part in (grant_of(company, number).object_key, grant_of(company, number).store, "customer"):
        assert part in text
    assert company.password(number) not in text
    with company.state.connect() as conn:
        assert [channel for _by, _at, channel in grants.openings(conn, number)] == ["command"]


def test_check_counts_minors_and_people_of_login_as_for_a_file(company: UseCompany) -> None:
    request = company.request(form="login")
    run = company.start(request=request.id)
    assert run.step(CHECK).outcome is Outcome.PASS
    assert (request.plan.records, request.plan.people, request.plan.minors) == (5, 5, 0)
