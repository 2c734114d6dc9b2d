"""A login gets no hidden record, field or value, whatever SQL its user writes."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.disclosure.logins.login_fixtures import delivered, log_in
from tests.disclosure.test_delivery import grant_of
from tests.disclosure.use_fixtures import UseCompany

LEAK = (
    "CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
    "$$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$"
)


REFUSED = [
    "SELECT * FROM public.customer",
    "SELECT id_number FROM customer",
    "SELECT * FROM customer WHERE id_number = 'ID1'",
    "SELECT name FROM customer ORDER BY id_number",
    "SELECT (c).id_number FROM customer c",
    "COPY public.customer TO STDOUT",
    "COPY (SELECT id_number FROM customer) TO STDOUT",
    "COPY customer TO PROGRAM 'cat'",
    "COPY customer TO '/tmp/x.csv'",
    "SELECT * FROM {login}.approved_key",
    "TABLE public.roster",
    "SELECT c.* FROM customer v JOIN public.customer c USING (customer_id)",
    "EXPLAIN ANALYZE SELECT * FROM public.customer",
    "INSERT INTO customer (customer_id) VALUES (1)",
    "UPDATE customer SET name = 'x'",
    "DELETE FROM customer",
    "SELECT * FROM customer FOR UPDATE",
    "CREATE TABLE {login}.copy AS SELECT * FROM customer",
    "CREATE VIEW {login}.other AS SELECT 1",
    "CREATE OR REPLACE VIEW {login}.customer AS SELECT * FROM public.customer",
    "ALTER VIEW customer RESET (security_barrier)",
    "SET ROLE use_owner",
    "SET SESSION AUTHORIZATION use_owner",
    "ALTER ROLE {login} VALID UNTIL 'infinity'",
    "ALTER ROLE {login} SUPERUSER",
    "CREATE ROLE other LOGIN",
    "CREATE SCHEMA other",
    "CREATE EXTENSION dblink",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT lo_import('PG_VERSION')",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_statistic",
    "DO $$ BEGIN PERFORM id_number FROM public.customer; END $$",
]


def _execute(session: psycopg.Connection[Any], query: sql.Composed, *, is_copy: bool) -> None:
    if not is_copy:
        session.execute(query)
        return
    with session.cursor().copy(query) as copy:
        list(copy)


@pytest.mark.parametrize("statement", REFUSED)
def test_hostile_statement_of_login_is_refused(company: UseCompany, statement: str) -> None:
    number = delivered(company)
    with log_in(company, number) as session:
        session.execute("SET default_transaction_read_only = off")  # the user may change it
        query = sql.SQL(statement).format(login=sql.Identifier(session.info.user))  # type: ignore[arg-type] # a fixed text
        with pytest.raises(psycopg.Error) as caught:
            _execute(session, query, is_copy=statement.startswith("COPY"))
    assert caught.value.sqlstate is not None
    assert caught.value.sqlstate[:2] in ("42", "25", "55", "0A", "28"), caught.value


def test_installed_dblink_gives_login_no_session_of_another_user(company: UseCompany) -> None:
    company.execute("CREATE EXTENSION dblink")
    try:
        number = delivered(company)
        query = "SELECT * FROM dblink(%s, 'SELECT id_number FROM public.customer') AS t (x text)"
        with log_in(company, number) as session:
            for user in ("postgres", "use_owner", session.info.user):
                address = f"host={session.info.host} port={session.info.port} user={user} "
                address += f"dbname={session.info.dbname} password={company.password(number)}"
                with pytest.raises(psycopg.Error):
                    session.execute(query, [address])
                with pytest.raises(psycopg.Error):
                    session.execute(query, [f"dbname={session.info.dbname} user={user}"])
    finally:
        company.execute("DROP EXTENSION dblink")


def test_plans_of_login_do_not_depend_on_values_of_records_that_were_not_approved(
    company: UseCompany,
) -> None:
    """PostgreSQL pushes leakproof conditions below a security barrier, but not below OFFSET."""
    company.add_customers(1, status="closed")  # number 6 with weight 60
    number = delivered(company)
    explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT * FROM "
    plans = set()
    with log_in(company, number) as session:
        for weight in (60, 61):
            query = f"{explain} customer WHERE customer_id = 6 AND weight = {weight}"
            rows = session.execute(query).fetchall()  # type: ignore[call-overload] # numbers
            plans.add(str(rows).replace(f"weight = {weight}", "weight = x"))
    assert len(plans) == 1, plans


def test_login_cannot_pass_its_right_on(company: UseCompany) -> None:
    number = delivered(company)
    name = grant_of(company, number).object_key
    rights = f"SELECT relacl::text FROM pg_class WHERE oid = '{name}.customer'::regclass"
    before = company.execute(rights)
    with log_in(company, number) as session:
        session.execute("SET default_transaction_read_only = off")
        session.execute("GRANT SELECT ON customer TO PUBLIC")  # only a warning in PostgreSQL
    assert company.execute(rights) == before


def test_functions_of_login_see_only_masked_values_of_approved_records(company: UseCompany) -> None:
    company.add_customers(2, status="closed")
    number = delivered(company)
    notices: list[str] = []
    with log_in(company, number) as session:
        session.execute("SET default_transaction_read_only = off")
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        for method in ("nestloop", "indexscan", "bitmapscan", "mergejoin"):
            session.execute(f"SET enable_{method} = off")  # so that the whole table is read
        session.execute(LEAK)
        session.execute("SELECT * FROM customer v WHERE pg_temp.leak(v::text)")
        session.execute("SELECT * FROM customer WHERE pg_temp.leak(phone)")
        session.execute(
            "SELECT * FROM customer a JOIN customer b ON pg_temp.leak(a.name || b.phone)"
        )
    assert notices
    text = "\n".join(notices)
    assert "ID" not in text
    assert "13800000001" not in text
    assert "王小" not in text
    assert "138******05" in text
    for number in (6, 7):  # records that were not approved, even masked
        assert f"138******0{number}" not in text


@pytest.mark.parametrize(
    "query",
    [
        "SELECT row_to_json(c)::text FROM customer c",
        "SELECT to_jsonb(c)::text FROM (SELECT * FROM customer) c",
        "SELECT c::text FROM customer c",
        "SELECT s::text FROM pg_stats s",
        "SELECT pg_get_viewdef('customer'::regclass)",
        "SELECT string_agg(q::text, '') FROM pg_stat_activity q WHERE usename <> current_user",
    ],
)
def test_result_of_login_contains_no_hidden_value(company: UseCompany, query: str) -> None:
    company.execute("ANALYZE customer")
    number = delivered(company)
    with log_in(company, number) as session:
        text = str(session.execute(query).fetchall())  # type: ignore[call-overload] # fixed texts
    for hidden in ("ID1", "13800000001", "王小"):
        assert hidden not in text
