"""Tests of the documented query that maps pgaudit's entries in PostgreSQL's CSV log."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from tests.disclosure.accesses.access_fixtures import NOON, AccessCompany, access_rules

# The table of PostgreSQL's documentation, "Using CSV-Format Log Output", without unused columns.
TABLE = """
CREATE TABLE postgres_log (
    log_time timestamp(3) with time zone, user_name text, database_name text, session_id text,
    session_line_num bigint, message text, application_name text,
    PRIMARY KEY (session_id, session_line_num))
"""
LOG = r"""
SELECT session_id || '.' || session_line_num AS access, user_name AS person, log_time AS at,
    substring(application_name FROM '^approval=(\d+)$') AS approval, NULL::text[] AS fields
FROM postgres_log
WHERE database_name = 'courier'
    AND message ~ '^AUDIT: (SESSION|OBJECT),\d+,\d+,READ,[^,]*,(TABLE|VIEW),public\.customer,'
"""


def test_reads_of_a_mapped_table_are_compared_and_other_entries_are_ignored(
    company: AccessCompany,
):
    company.add_approval()
    read = 'AUDIT: SESSION,1,1,READ,SELECT,TABLE,public.customer,"select a, b from customer",<none>'
    entries = [
        (1, "N1", "courier", read, "approval=10"),
        (2, "N1", "courier", read, "psql"),
        (3, "N2", "courier", read.replace("SESSION", "OBJECT"), "approval=10"),
        (4, "N2", "other", read, ""),
        (5, "N2", "courier", read.replace("READ,SELECT", "WRITE,UPDATE"), ""),
        (6, "N2", "courier", read.replace("public.customer", "public.customer_note"), ""),
        (7, "N2", "courier", "duration: 3 ms", ""),
    ]
    with psycopg.connect(company.source, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS postgres_log")
        connection.execute(TABLE)
        for line, person, database, message, application in entries:
            connection.execute(
                "INSERT INTO postgres_log VALUES (%s, %s, %s, '65e1.2a', %s, %s, %s)",
                [NOON - timedelta(hours=1), person, database, line, message, application],
            )
    company.rules = access_rules(log=LOG)
    comparison = company.compare()
    assert comparison.accesses == 3
    assert {(row.access, row.detail) for row in company.entries()} == {
        ("65e1.2a.2", "none_named"),
        ("65e1.2a.3", "other_person"),
    }
    assert comparison.compares_purposes is False
