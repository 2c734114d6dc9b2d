"""Tests of the key `accesses` of use.yaml, and of queries that cannot be executed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from include.disclosure.accesses.rules import AccessRules, check_accesses
from include.services.errors import ServiceError, UsageError
from tests.disclosure.accesses.access_fixtures import AccessCompany, access_rules

COLUMNS = "access, person, at, approval"


def test_rules_have_defaults_and_refuse_unknown_keys():
    rules = access_rules()
    assert (str(rules.overlap), str(rules.full_every), rules.peer_days) == ("P2D", "P7D", 30)
    for wrong in ({"overlap": "P2Y"}, {"overlap": "P0D"}, {"peer_days": 0}, {"table": "seen"},
                  {"log": " "}, {"compare_from": "March"}):  # fmt: skip
        with pytest.raises(ValidationError):
            access_rules(**wrong)


def test_check_reports_database_that_the_pack_does_not_map():
    pack: Any = SimpleNamespace(inventory={"courier"})
    faults = list(check_accesses(access_rules(), pack))
    assert faults == [(("database",), "the pack maps no database 'firm'")]
    assert list(check_accesses(access_rules(database="courier"), pack)) == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"log": "SELECT access, person FROM seen"}, "lacks the columns at, approval"),
        ({"approvals": "SELECT approval FROM permit"}, "lacks the columns person, approver"),
        ({"log": "SELECT access, person, at::timestamp AS at, approval FROM seen"},
         "returns at without a time zone"),
        ({"approvals": "SELECT *, ends::date AS x FROM permit, missing"}, "does not exist"),
        ({"log": "DELETE FROM seen RETURNING *"}, "syntax error"),
        ({"log": "SELECT access, person, at, approval, set_config('a.b', 'c', 1) FROM seen"},
         "set_config"),
        ({"log": f"SELECT {COLUMNS}, 1 / (access - 1) AS purpose FROM seen"},
         "does not have the type"),
        ({"log": f"SELECT {COLUMNS}, 'secret of ' || person::int AS purpose FROM seen"},
         "does not have the type"),
    ],
)  # fmt: skip
def test_wrong_query_is_reported_without_any_value(
    company: AccessCompany, rules: dict[str, Any], message: str
):
    company.add_access(person="Wang Fang")
    company.add_approval(person="Wang Fang")
    company.rules = access_rules(**rules)
    with pytest.raises(UsageError, match=message) as caught:
        company.compare()
    assert "Wang" not in str(caught.value)
    assert company.entries() == []


def test_lost_connection_is_an_error_of_the_service(company: AccessCompany):
    company.add_access()
    company.rules = access_rules(
        log=f"SELECT {COLUMNS}, pg_terminate_backend(pg_backend_pid())::text AS purpose FROM seen"
    )
    with pytest.raises(ServiceError, match="was lost"):
        company.compare()


def test_query_that_writes_is_refused(company: AccessCompany):
    company.sql(
        "CREATE OR REPLACE FUNCTION written() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO seen (access) VALUES (9) RETURNING 'x'$$"
    )
    company.add_access()
    company.rules = access_rules(log=f"SELECT {COLUMNS}, written() AS purpose FROM seen")
    with pytest.raises(UsageError, match="SQLSTATE 25006"):
        company.compare()


@pytest.mark.parametrize(
    ("log", "approvals"),
    [
        ("SELECT access::text, person::varchar(9), at, approval::text FROM seen",
         "SELECT approval, person::char(9), approver, starts, ends FROM permit"),
        ("SELECT access, md5(person)::uuid AS person, at, approval::smallint FROM seen",
         "SELECT approval, md5(person)::uuid AS person, md5(approver)::uuid AS approver, starts, "
         "ends FROM permit"),
        ('SELECT access, person COLLATE "en_US" AS person, at, approval FROM seen',
         'SELECT approval, person COLLATE "C" AS person, approver, starts, ends FROM permit'),
        ("SELECT * FROM seen UNION ALL SELECT * FROM seen WHERE false", "TABLE permit"),
    ],
)  # fmt: skip
def test_keys_of_different_types_and_collations_are_compared(
    company: AccessCompany, log: str, approvals: str
):
    with psycopg.connect(company.source) as connection:
        collation = connection.execute(
            "SELECT 1 FROM pg_collation WHERE collname = 'en_US'"
        ).fetchone()
    if not collation:
        log = log.replace("en_US", "POSIX")
    company.add_approval()
    company.add_access(1)
    company.add_access(2, person="N2")
    company.rules = AccessRules.model_validate(
        {"database": "firm", "log": log, "approvals": approvals}
    )
    company.compare()
    assert company.violations() == {("2", "without_approval")}
