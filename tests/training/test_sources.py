"""Where people, courses and completions come from: one database, several, uploaded files."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL
from sqlalchemy import insert

from include.services.errors import ServiceError, UsageError
from include.training.notices import Roster
from include.training.sources import open_sources
from include.training.tables import (
    training_completion,
    training_course,
    training_roster,
    training_upload,
)
from tests.training.rig import Rig, rules

UPLOAD = {"upload": True}


def uploaded(rig: Rig) -> None:
    """A roster, a course and a completion of last year as files brought them."""
    with rig.engine.begin() as conn:
        for number, kind in enumerate(("roster", "courses", "completions"), 1):
            row = {"kind": kind, "sha256": "", "lines": 1, "uploaded_by": "E1"}
            conn.execute(insert(training_upload).values(uploaded_at=rig.now(), **row))
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


def test_uploaded_files_are_read_where_they_are(rig: Rig):
    """With no database but the state database."""
    uploaded(rig)
    rig.rules = rules(people=UPLOAD, courses=UPLOAD, completions=UPLOAD)
    [one] = rig.due()
    assert (one.person, one.due_on.isoformat(), one.rung) == ("P1", "2026-03-10", -30)


@pytest.mark.parametrize("kind", ["people", "courses", "completions"])
def test_files_and_databases_are_brought_together(rig: Rig, kind: str):
    """Whichever of the three was uploaded, the result is the same; nothing stays behind."""
    uploaded(rig)
    rig.person("P1", mail="tab\tline\nslash\\")
    rig.course(title="Law", repeat_months=12)
    rig.took("2025-03-10")
    rig.rules = rules(**{kind: UPLOAD})
    for _ in range(2):  # a second time in the same session
        [one] = rig.due()
        assert (one.title, one.due_on.isoformat()) == ("Law", "2026-03-10")
    with rig.engine.connect() as conn:
        assert not conn.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relname LIKE 'gathered%%'"
        ).all()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 1 AS person", "people lacks the columns name, mail, department"),
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELEKT", "syntax error"),
        ("SELECT * FROM pg_authid", "people lacks the columns person"),
    ],
)
def test_a_query_that_cannot_be_used_is_said(rig: Rig, sql: str, said: str):
    """With the place in the pack, before anything is done."""
    rig.rules = rules(people={"database": "firm", "sql": sql})
    with pytest.raises(UsageError, match=r"training\.yaml: ") as caught:
        rig.due()
    assert said in caught.value.message


@pytest.mark.parametrize("apart", [False, True])
def test_a_value_of_another_form_is_said_without_the_value(rig: Rig, apart: bool):
    """PostgreSQL's own words would quote it."""
    rig.person("P1")
    rig.course()
    sql = "SELECT *, '13800000000'::text AS joined_on FROM (SELECT person, name, mail, department, "
    sql += "supervisor, head, left_on, leave_from, leave_until, access FROM people) p"
    more = {"courses": UPLOAD} if apart else {}
    rig.rules = rules(people={"database": "firm", "sql": sql}, **more)
    with pytest.raises(UsageError, match="another form than its column") as caught:
        rig.due()
    assert "138" not in str(caught.value)


def test_a_database_that_is_gone_is_a_failed_service(rig: Rig):
    """Airflow retries the task."""
    with rig.open() as sources:
        rig.execute("SELECT pg_terminate_backend(%s)", [sources.connection.info.backend_pid])
        with pytest.raises(ServiceError):
            Roster(sources, rig.today).find(["P1"])


def test_nothing_can_be_written_where_records_are(rig: Rig):
    """Whatever a query of the pack tries."""
    rig.execute(
        "CREATE OR REPLACE FUNCTION hire() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO people (person) VALUES ('X') RETURNING person$$"
    )
    rig.person()
    sql = "SELECT hire() AS person, name, mail, department, supervisor, head, joined_on, left_on, "
    sql += "leave_from, leave_until, access FROM people"
    rig.rules = rules(people={"database": "firm", "sql": sql})
    rig.course()
    with pytest.raises(UsageError, match="SQLSTATE 25006"):
        rig.due()


def test_of_some_people_only_their_rows_are_brought_together(rig: Rig):
    """Just before each batch of mails is sent: a copy of the whole company would take too long."""
    uploaded(rig)
    for number in range(5):
        rig.person(f"P{number}")
        rig.took("2025-03-10", f"P{number}")
    rig.rules = rules(courses=UPLOAD)
    with open_sources(rig.context(), ["P1", "P3"]) as sources:
        for name in ("people", "completions"):
            query = SQL("SELECT person FROM {} AS one ORDER BY 1").format(sources[name])
            assert sources.connection.execute(query).fetchall() == [("P1",), ("P3",)]
