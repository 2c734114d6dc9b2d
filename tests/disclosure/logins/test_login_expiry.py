"""A login ends with its access, and its user cannot prevent its removal."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from include.disclosure import delivery, grants
from include.disclosure.absence_proof import PROVE
from include.disclosure.delivery import DELIVER, deliver_extract
from include.disclosure.expiry import EXPIRE
from include.disclosure.grants import EndReason, GrantState
from include.disclosure.login_expiry import remove_login_now
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.evidence.step_findings import StepFindings
from include.services.database import LOGIN_PREFIX
from include.services.errors import ServiceError
from tests.disclosure.logins.login_fixtures import delivered, log_in, traces
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import UseCompany, drop_logins, erase


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


def test_confirmation_removes_login_at_once(company: UseCompany) -> None:
    number = delivered(company)
    company.start(action="confirm", request=number).step(CONFIRM_COPIES)
    assert traces(company) == []
    assert grant_of(company, number).state is GrantState.ENDING


def test_login_on_another_server_is_not_counted_as_removed(company: UseCompany) -> None:
    number = delivered(company)
    good = company.login
    company.login = make_conninfo(good, host=f"{conninfo_to_dict(good)['host']}/.")
    try:
        assert not remove_login_now(company.context(), grant_of(company, number), "shop")
    finally:
        company.login = good
    assert remove_login_now(company.context(), grant_of(company, number), "shop")
    assert traces(company) == []


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
