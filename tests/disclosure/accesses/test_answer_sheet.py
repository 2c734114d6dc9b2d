"""Tests of the comparison on the sample company, against its answer sheet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.disclosure.accesses.rules import AccessRules
from include.local.postgres import EmbeddedPostgres
from include.sample_company import load
from include.sample_company.answers import AnswerSheet
from include.services.errors import UsageError
from tests.disclosure.accesses.access_fixtures import AccessCompany
from tests.support.databases import pooled, temporary_database

AS_OF = datetime(2026, 6, 1, 4, tzinfo=UTC)
LOG = """
SELECT a.access_id AS access, e.number AS person, a.customer_id AS subject, a.purpose,
    NULL::text[] AS fields, a.accessed_at AS at, a.approval_id AS approval, d.name AS department
FROM access_log a LEFT JOIN employee e USING (employee_id)
    LEFT JOIN department d USING (department_id)
"""
APPROVALS = """
SELECT p.approval_id AS approval, r.number AS person, s.number AS approver, p.purpose, p.fields,
    p.approved_at AS starts, p.valid_until AS ends
FROM approval p JOIN employee r ON r.employee_id = p.requester_id
LEFT JOIN employee s ON s.employee_id = p.approver_id
"""


@pytest.fixture(scope="module")
def sample(postgres: EmbeddedPostgres) -> Iterator[tuple[str, AnswerSheet]]:
    """Provide the sample company's database and its answer sheet."""
    with temporary_database(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            sheet = load(connection, customers=3000, as_of=AS_OF)
        yield postgres.conninfo(name), sheet


@pytest.fixture
def company(
    postgres: EmbeddedPostgres, sample: tuple[str, AnswerSheet], migrated_database: str
) -> AccessCompany:
    """Provide the sample company with rules for its access log."""
    del postgres
    rules = AccessRules.model_validate({"database": "firm", "log": LOG, "approvals": APPROVALS})
    return AccessCompany(sample[0], pooled(migrated_database), rules, AS_OF)


def keys(company: AccessCompany, kind: str) -> set[int]:
    return {int(access) for access, found_kind in company.violations() if found_kind == kind}


def planted(sheet: AnswerSheet, rule: str) -> set[int]:
    return set(sheet.planted[rule].keys())


def accesses_under_own_approvals(conninfo: str, sheet: AnswerSheet) -> set[int]:
    own = list(planted(sheet, "approval_by_requester"))
    query = "SELECT access_id FROM access_log WHERE approval_id = ANY(%s)"
    with psycopg.connect(conninfo) as connection:
        return {access for (access,) in connection.execute(query, [own])}


def check_planted(company: AccessCompany, sample: tuple[str, AnswerSheet]) -> None:
    conninfo, sheet = sample
    expected = {
        "without_approval": planted(sheet, "access_without_approval"),
        "outside_period": planted(sheet, "access_after_approval"),
        "outside_purpose": planted(sheet, "access_out_of_purpose"),
        "approval_by_requester": accesses_under_own_approvals(conninfo, sheet),
    }
    assert all(expected.values())
    assert {kind: keys(company, kind) for kind in expected} == expected
    assert {kind for _access, kind in company.violations()} == set(expected)


def test_comparison_finds_exactly_the_planted_violations_by_key(
    company: AccessCompany, sample: tuple[str, AnswerSheet]
):
    comparison = company.compare()
    check_planted(company, sample)
    assert comparison.accesses == sample[1].tables["access_log"]
    live = set.union(*(keys(company, kind) for kind in
        ("without_approval", "outside_period", "approval_by_requester")))  # fmt: skip
    assert comparison.without_live_approval == len(live)
    assert comparison.never_used == 0


def test_weekly_comparisons_of_the_last_months_find_the_same_violations(
    company: AccessCompany, sample: tuple[str, AnswerSheet]
):
    """The log grows from week to week, as a view that hides later accesses shows it."""
    hidden = "{} WHERE a.accessed_at <= current_setting('parcelseal.shown')::timestamptz"
    company.rules = AccessRules.model_validate(
        {"database": "firm", "log": hidden.format(LOG), "approvals": APPROVALS,
         "full_every": "P1Y"}
    )  # fmt: skip
    with psycopg.connect(sample[0], autocommit=True) as admin:
        name = admin.info.dbname
        full = []
        for weeks in range(8, -1, -1):
            company.now = AS_OF - timedelta(weeks=weeks)
            shown = company.now.isoformat()
            admin.execute(f"ALTER DATABASE \"{name}\" SET parcelseal.shown = '{shown}'")
            full.append(company.compare().full)
        admin.execute(f'ALTER DATABASE "{name}" RESET parcelseal.shown')
    assert full == [True] + [False] * 8
    check_planted(company, sample)


def test_accesses_of_leavers_and_untrained_people_with_approval_are_no_violations(
    company: AccessCompany, sample: tuple[str, AnswerSheet]
):
    company.compare()
    entitled = planted(sample[1], "access_by_leaver") | planted(sample[1], "access_by_untrained")
    assert entitled
    assert entitled.isdisjoint({int(access) for access, _kind in company.violations()})


def test_peers_of_each_department_have_a_median_and_a_person(
    company: AccessCompany, sample: tuple[str, AnswerSheet]
):
    comparison = company.compare()
    assert comparison.peers
    assert all(group.most >= group.median > 0 for group in comparison.peers)
    query = (
        "SELECT count(*) FROM access_log a JOIN employee e USING (employee_id) "
        "WHERE e.number = %s AND accessed_at > %s AND accessed_at <= %s"
    )
    with psycopg.connect(sample[0]) as connection:
        for group in comparison.peers:
            values = [group.person, AS_OF - timedelta(days=30), AS_OF]
            row = connection.execute(query, values).fetchone()
            assert row == (group.most,)


def test_login_that_may_read_four_tables_can_compare(
    company: AccessCompany, sample: tuple[str, AnswerSheet]
):
    with psycopg.connect(sample[0], autocommit=True) as admin:
        admin.execute("CREATE ROLE accesses_reader LOGIN PASSWORD 'secret'")
        try:
            admin.execute("GRANT USAGE ON SCHEMA public TO accesses_reader")
            admin.execute("GRANT SELECT ON access_log, approval TO accesses_reader")
            admin.execute(
                "GRANT SELECT (employee_id, number, department_id) ON employee TO accesses_reader"
            )
            company.source = make_conninfo(sample[0], user="accesses_reader", password="secret")
            with pytest.raises(UsageError, match="permission denied for table department"):
                company.compare()
            admin.execute("GRANT SELECT (department_id, name) ON department TO accesses_reader")
            company.compare()
        finally:
            admin.execute("DROP OWNED BY accesses_reader")
            admin.execute("DROP ROLE accesses_reader")
    check_planted(company, sample)
