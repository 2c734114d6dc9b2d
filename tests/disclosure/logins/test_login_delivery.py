"""A delivered login reads exactly the approved records and columns, and nothing else."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.disclosure import delivery, grants
from include.disclosure.delivery import DELIVER, deliver_extract
from include.disclosure.expiry import EXPIRE, PROVE
from include.disclosure.grants import EndReason, GrantState
from include.disclosure.logins import create
from include.disclosure.opening import open_extract
from include.disclosure.use_check import CHECK
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.services.database import LOGIN_PREFIX
from include.services.errors import ControlFailed, ServiceError, UsageError
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import RULES, UseCompany, drop_logins, erase, new_pack

FIELDS = ["customer_id", "name", "phone", "weight"]
NAMES = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, %s)"


def delivered(company: UseCompany, **more: Any) -> int:
    """Deliver a login, and return the number of its request."""
    run, number = approved(company, form="login", **more)
    record = run.step(DELIVER)
    assert record.outcome is not Outcome.FAIL, record.findings
    assert run.verify().outcome is Outcome.PASS
    return number


def log_in(company: UseCompany, number: int) -> psycopg.Connection[Any]:
    """Connect as the requester does: with the user of the file and the password of the mail."""
    return psycopg.connect(
        company.source,
        user=grant_of(company, number).object_key,
        password=company.password(number),
        autocommit=True,
    )


def traces(company: UseCompany) -> list[tuple[Any, ...]]:
    """Return the roles, schemas and sessions of transient logins."""
    return company.execute(
        f"{NAMES} UNION SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, %s) "
        "UNION SELECT usename::text FROM pg_stat_activity WHERE starts_with(usename, %s)",
        *[LOGIN_PREFIX] * 3,
    )


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


def test_expire_ends_session_in_use_and_drops_login_and_changes_no_other_right(
    company: UseCompany,
) -> None:
    rights = "SELECT relname, relacl::text, relrowsecurity FROM pg_class WHERE relnamespace = 2200"
    rights += " UNION SELECT polname, polrelid::text, true FROM pg_policy"
    before = company.execute(rights)
    number = delivered(company)
    assert company.execute(rights) == before
    session = log_in(company, number)
    session.execute("BEGIN; DECLARE c CURSOR FOR SELECT * FROM customer; FETCH 1 FROM c")
    company.clock.at += timedelta(days=4)
    run = company.expire()
    assert traces(company) == []
    assert company.execute(rights) == before
    assert grant_of(company, number).state is GrantState.ENDED
    assert run.context.require(PROVE).proved == 1
    with pytest.raises(psycopg.OperationalError):
        session.execute("FETCH 1 FROM c")


def test_expire_drops_login_with_prepared_transaction_and_large_object(
    company: UseCompany,
) -> None:
    number = delivered(company)
    session = log_in(company, number)
    session.execute("SET default_transaction_read_only = off")
    session.execute("SELECT lo_create(0)")
    session.execute("BEGIN; LOCK TABLE customer IN ACCESS SHARE MODE; PREPARE TRANSACTION 'kept'")
    company.clock.at += timedelta(days=4)
    company.expire()
    assert traces(company) == []
    assert company.execute("SELECT FROM pg_prepared_xacts") == []
    assert company.execute("SELECT FROM pg_largeobject_metadata") == []


def test_expire_drops_login_whose_sessions_lock_its_own_role(company: UseCompany) -> None:
    number = delivered(company)
    name = grant_of(company, number).object_key
    session = log_in(company, number)
    for setting in (
        "default_transaction_read_only = off",
        "idle_in_transaction_session_timeout = 0",
    ):
        session.execute(f"SET {setting}")
    session.execute(f"BEGIN; ALTER ROLE {name} PASSWORD NULL")
    company.clock.at += timedelta(days=4)
    company.expire()
    assert traces(company) == []


def test_expire_drops_login_with_objects_in_another_database(company: UseCompany) -> None:
    number = delivered(company)
    with psycopg.connect(
        company.source,
        dbname="postgres",
        user=grant_of(company, number).object_key,
        password=company.password(number),
        autocommit=True,
    ) as session:
        session.execute("SET default_transaction_read_only = off")
        session.execute("SELECT lo_from_bytea(0, 'x')")
        session.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    company.clock.at += timedelta(days=4)
    company.expire()
    assert traces(company) == []


def test_expire_reports_session_of_login_that_was_dropped_by_hand(company: UseCompany) -> None:
    number = delivered(company)
    with log_in(company, number) as session:
        drop_logins(company.source, "use_owner")
        assert session.execute("SELECT 1").fetchone() == (1,)
        company.clock.at += timedelta(minutes=1)
        run = company.start("expire_grants", by=None)
        run.step(EXPIRE)
        codes = {finding.code for finding in run.step(PROVE).findings}
    assert codes == {"use.login_remains", "use.extract_missing"}


def test_expire_reports_login_on_another_server_than_that_of_the_connection(
    company: UseCompany,
) -> None:
    number = delivered(company)
    company.clock.at += timedelta(days=4)
    good = company.login
    host = str(conninfo_to_dict(good)["host"])
    company.login = make_conninfo(good, host=f"{host}/.")  # another name of the same server
    try:
        run = company.start("expire_grants", by=None)
        codes = {finding.code for finding in run.step(EXPIRE).findings}
        run.step(PROVE)
    finally:
        company.login = good
    assert codes == {"use.other_store"}
    assert grant_of(company, number).state is GrantState.ENDING


@pytest.mark.parametrize("reason", ["erased", "left", "ended"])
def test_expire_drops_login_whose_access_ended_early(company: UseCompany, reason: str) -> None:
    number = delivered(company)
    if reason == "erased":
        company.clock.at += timedelta(minutes=1)
        erase(company, "2")
    elif reason == "left":
        company.set_employee("clerk", active=False)
    else:
        with company.state.begin() as conn:
            grants.end_access(conn, number, EndReason.ENDED_BY_PERSON, company.clock.now(), by="x")
    company.expire()
    assert traces(company) == []
    assert grant_of(company, number).state is GrantState.ENDED


def test_expire_keeps_login_of_another_live_grant_of_the_same_person(company: UseCompany) -> None:
    first, second = delivered(company), delivered(company, days=7)
    company.clock.at += timedelta(days=4)
    company.expire()
    assert grant_of(company, first).state is GrantState.ENDED
    with log_in(company, second) as session:
        assert session.execute("SELECT count(*) FROM customer").fetchone() == (5,)


def test_expire_drops_login_of_killed_delivery(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, number = approved(company, form="login")

    def die(*_: Any, **__: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(delivery.grants, "record_delivery", die)
        with pytest.raises(KeyboardInterrupt):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    assert len(traces(company)) == 1
    run.step(DELIVER)
    assert len(traces(company)) == 2
    company.expire()
    assert [name for (name,) in traces(company)] == [grant_of(company, number).object_key]


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
    ("taken", "given"),
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
    company: UseCompany, taken: str, given: str
) -> None:
    run, _number = approved(company, form="login")
    [(name,)] = company.execute("SELECT 'DATABASE ' || quote_ident(current_database())")
    company.execute(taken.format(name))
    try:
        with pytest.raises(UsageError, match=r"(does|may) not allow"):
            deliver_extract(run.context, StepFindings("deliver", "5.3"))
    finally:
        company.execute(given.format(name))
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


def test_confirmation_removes_login_at_once(company: UseCompany) -> None:
    number = delivered(company)
    company.start(action="confirm", request=number).step(CONFIRM_COPIES)
    assert traces(company) == []
    assert grant_of(company, number).state is GrantState.ENDING


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


def test_expire_reports_login_that_no_delivery_created(company: UseCompany) -> None:
    company.execute(f"CREATE ROLE {LOGIN_PREFIX}999_stranger LOGIN")
    run = company.start("expire_grants", by=None)
    run.step(EXPIRE)
    record = run.step(PROVE)
    assert [finding.code for finding in record.findings] == ["use.login_remains"]


def test_expire_reports_unavailable_database_and_still_ends_extracts(company: UseCompany) -> None:
    login = delivered(company)
    extract = company.request(form="zip")
    company.deliver(extract)
    company.clock.at += timedelta(days=4)
    good, company.login = company.login, company.login.replace("use_owner", "nobody_knows")
    company.is_last_try = True
    try:
        run = company.start("expire_grants", by=None)
        codes = {finding.code for finding in run.step(EXPIRE).findings}
        run.step(PROVE)
    finally:
        company.login = good
    assert codes == {"use.logins_unreadable", "use.roster_unreadable"}
    assert grant_of(company, extract.id).state is GrantState.ENDED
    assert grant_of(company, login).state is GrantState.ENDING
    company.is_last_try = False
    company.expire()
    assert grant_of(company, login).state is GrantState.ENDED
    assert traces(company) == []


def test_two_runs_at_once_drop_a_login_once(company: UseCompany) -> None:
    number = delivered(company)
    company.clock.at += timedelta(days=4)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            company.expire()
        except ServiceError:  # one run retries what the other is just dropping
            company.expire()
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert traces(company) == []
    assert grant_of(company, number).state is GrantState.ENDED


def test_check_counts_minors_and_people_of_login_as_for_a_file(company: UseCompany) -> None:
    request = company.request(form="login")
    run = company.start(request=request.id)
    assert run.step(CHECK).outcome is Outcome.PASS
    assert (request.plan.records, request.plan.people, request.plan.minors) == (5, 5, 0)
