"""Tests of reading people, courses and completions from databases and uploaded files."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL
from sqlalchemy import insert

from include.services.errors import ServiceError, UsageError
from include.training.notifications import Roster
from include.training.sources import open_sources
from include.training.tables import (
    training_completion,
    training_course,
    training_roster,
    training_upload,
)
from tests.training.training_fixtures import TrainingCompany, rules

UPLOAD = {"upload": True}


def upload_sample(company: TrainingCompany) -> None:
    """Insert an uploaded roster, an uploaded course, and an uploaded completion of last year."""
    with company.engine.begin() as conn:
        for number, kind in enumerate(("roster", "courses", "completions"), 1):
            row = {"kind": kind, "sha256": "", "lines": 1, "uploaded_by": "E1"}
            conn.execute(insert(training_upload).values(uploaded_at=company.now(), **row))
            assert number
        conn.execute(
            insert(training_roster).values(
                upload_id=1, person="P1", name="N", department="North", head=False,
                joined_on="2020-01-06", access=False,
            )
        )  # fmt: skip
        conn.execute(
            insert(training_course).values(
                upload_id=2, course="LAW", title="Law", topic="law", version=1,
                published_on="2019-01-01", within_days=60, repeat_months=12,
            )
        )  # fmt: skip
        conn.execute(
            insert(training_completion).values(
                upload_id=3, person="P1", course="LAW", version=1, completed_on="2025-03-10",
                passed=True,
            )
        )  # fmt: skip


def test_uploaded_files_are_read_from_state_database(company: TrainingCompany):
    upload_sample(company)
    company.rules = rules(people=UPLOAD, courses=UPLOAD, completions=UPLOAD)
    [due] = company.due_courses()
    assert (due.person, due.due_on.isoformat(), due.rung) == ("P1", "2026-03-10", -30)


@pytest.mark.parametrize("kind", ["people", "courses", "completions"])
def test_obligations_are_computed_from_uploads_and_queries_together(
    company: TrainingCompany, kind: str
):
    upload_sample(company)
    company.add_person("P1", mail="tab\tline\nslash\\")
    company.add_course(title="Law", repeat_months=12)
    company.add_completion("2025-03-10")
    company.rules = rules(**{kind: UPLOAD})
    for _ in range(2):  # a second time in the same session
        [due] = company.due_courses()
        assert (due.title, due.due_on.isoformat()) == ("Law", "2026-03-10")
    with company.engine.connect() as conn:
        assert not conn.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relname LIKE 'gathered%%'"
        ).all()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 AS person", "people lacks the columns name, mail, department"),
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELEKT", "syntax error"),
        ("SELECT * FROM pg_authid", "people lacks the columns person"),
    ],
)
def test_usage_error_is_raised_if_source_query_fails_or_its_result_lacks_columns(
    company: TrainingCompany, sql: str, expected: str
):
    company.rules = rules(people={"database": "firm", "sql": sql})
    with pytest.raises(UsageError, match=r"training\.yaml: ") as error:
        company.due_courses()
    assert expected in error.value.message


@pytest.mark.parametrize("with_upload", [False, True])
def test_error_for_source_value_of_wrong_type_does_not_contain_the_value(
    company: TrainingCompany, with_upload: bool
):
    """The error message of PostgreSQL would quote the value."""
    company.add_person("P1")
    company.add_course()
    sql = "SELECT *, '13800000000'::text AS joined_on FROM (SELECT person, name, mail, department, "
    sql += "supervisor, head, left_on, leave_from, leave_until, access FROM people) p"
    more = {"courses": UPLOAD} if with_upload else {}
    company.rules = rules(people={"database": "firm", "sql": sql}, **more)
    with pytest.raises(UsageError, match="not have the type of its column") as error:
        company.due_courses()
    assert "138" not in str(error.value)


def test_lost_database_connection_raises_service_error(company: TrainingCompany):
    with company.open() as sources:
        company.execute("SELECT pg_terminate_backend(%s)", [sources.connection.info.backend_pid])
        with pytest.raises(ServiceError):
            Roster(sources, company.today).find(["P1"])


def test_source_query_that_writes_to_its_database_raises_usage_error(company: TrainingCompany):
    company.execute(
        "CREATE OR REPLACE FUNCTION hire() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO people (person) VALUES ('X') RETURNING person$$"
    )
    company.add_person()
    sql = "SELECT hire() AS person, name, mail, department, supervisor, head, joined_on, left_on, "
    sql += "leave_from, leave_until, access FROM people"
    company.rules = rules(people={"database": "firm", "sql": sql})
    company.add_course()
    with pytest.raises(UsageError, match="SQLSTATE 25006"):
        company.due_courses()


def test_open_sources_reads_roster_and_completions_of_the_given_people_only(
    company: TrainingCompany,
):
    upload_sample(company)
    for number in range(5):
        company.add_person(f"P{number}")
        company.add_completion("2025-03-10", f"P{number}")
    company.rules = rules(courses=UPLOAD)
    with open_sources(company.context(), ["P1", "P3"]) as sources:
        for name in ("people", "completions"):
            query = SQL("SELECT person FROM {} AS one ORDER BY 1").format(sources[name])
            assert sources.connection.execute(query).fetchall() == [("P1",), ("P3",)]
