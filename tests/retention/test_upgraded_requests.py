"""Requests that an earlier version found, which kept no keys of their records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from include.erasure import requests
from include.evidence.model import Outcome
from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from include.state.migrate import migrate
from tests.retention.linked import FIDES, Schema, found_by, linked_rig
from tests.retention.rig import NAME, YOUNG, Rig, rule

BEFORE = "0025"  # the last revision without the keys of a request's records
REQUEST = """
INSERT INTO erasure_request
    (database, subject, reference, received_on, due_on, entered_by, entered_at, found_at)
VALUES (%s, '1', 'case 1', %s, %s, 'dpo', now(), CASE WHEN %s THEN now() END)
"""
DIRECT = Schema(FIDES.tables, FIDES.keys, (rule("customer", **found_by("t.id")),))


@pytest.fixture(params=[FIDES], ids=["linked"])
def old(postgres: EmbeddedPostgres, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A customer with a visit; the state database has the revision of the earlier version."""
    with linked_rig(postgres, request.param, revision=BEFORE) as rig:
        rig.insert("customer", id=1, email="user1@example.com", name="n", at=YOUNG)
        rig.insert("visit", email="user1@example.com", last_visit=YOUNG, at=YOUNG)
        yield rig


def request_of_before(rig: Rig, *, found: bool = True, days_left: int = 10) -> None:
    """Enter the request as the earlier version did, and note whether a plan found records."""
    due = SystemClock().now().date() + timedelta(days=days_left)
    rig.state_sql(REQUEST, [NAME, due - requests.DUE_AFTER, due, found])


@pytest.mark.parametrize(
    ("days_left", "became", "code", "outcome"),
    [
        (10, "open", "retention.request_found_earlier", Outcome.ATTENTION),
        (-1, "overdue", "retention.request_overdue", Outcome.FAIL),
    ],
)
def test_request_whose_link_an_earlier_version_erased_stays_open(
    old: Rig, days_left: int, became: str, code: str, outcome: Outcome
) -> None:
    """The customer is gone, and with it what led to the visit: a person has to look."""
    request_of_before(old, days_left=days_left)
    old.sql("DELETE FROM customer")
    migrate(old.engine)
    for run in ("r1", "r2"):
        *_, counted = old.run(run)
        assert [request["state"] for request in counted.data["requests"]] == [became]
        assert [(it.code, it.severity) for it in counted.findings] == [(code, outcome)]
    assert old.sql("SELECT email FROM visit") == [("user1@example.com",)]


def test_request_found_earlier_stays_open_after_its_other_records_are_erased(old: Rig) -> None:
    """This version erases the customer; another visit may have lost its link before."""
    request_of_before(old)
    migrate(old.engine)
    *_, counted = old.run()
    assert old.sql("SELECT count(*) FROM customer, visit") == [(0,)]
    assert [it.code for it in counted.findings] == ["retention.request_found_earlier"]
    with old.engine.begin() as conn:
        requests.withdraw(conn, old.clock, 1, by="dpo", because="no visit is left")
    *_, counted = old.run("r2")
    assert counted.data["requests"] == []


def test_request_that_no_earlier_run_found_is_closed(old: Rig) -> None:
    """No record of it was erased before the keys were kept."""
    request_of_before(old, found=False)
    migrate(old.engine)
    *_, counted = old.run()
    assert [request["state"] for request in counted.data["requests"]] == ["closed"]
    assert counted.findings == []


@pytest.mark.parametrize("old", [DIRECT], indirect=True)
def test_request_found_earlier_is_closed_where_records_name_the_subject(old: Rig) -> None:
    """No class finds its records through others, so that no link was lost."""
    request_of_before(old)
    migrate(old.engine)
    *_, counted = old.run()
    assert [request["state"] for request in counted.data["requests"]] == ["closed"]
