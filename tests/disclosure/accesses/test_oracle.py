"""Tests of the comparison on random logs and approvals, against an oracle in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.disclosure.accesses import oracle
from tests.disclosure.accesses.access_fixtures import NOON, AccessCompany, access_rules
from tests.disclosure.accesses.oracle import Access, Approval

shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
HOURS = st.integers(-300, 40)
PEOPLE = st.sampled_from(["N1", "N2", None])
PURPOSES = st.sampled_from(["delivery", "settlement", "Delivery", None])
FIELDS = st.none() | st.lists(st.sampled_from(["name", "phone", "id"]), max_size=3).map(tuple)
SUBJECTS = st.integers(1, 3)
KEYS = st.integers(1, 6)


def moment(hours: int) -> datetime:
    return NOON + timedelta(hours=hours)


MOMENTS = HOURS.map(moment)
ACCESSES = st.lists(
    st.builds(
        Access,
        access=st.integers(1, 40),
        person=PEOPLE,
        subject=st.none() | SUBJECTS,
        purpose=PURPOSES,
        fields=FIELDS,
        at=st.none() | MOMENTS,
        approval=st.none() | KEYS,
    ),
    max_size=12,
)
APPROVALS = st.lists(
    st.builds(
        Approval,
        approval=KEYS,
        person=PEOPLE,
        approver=st.sampled_from(["N1", "N8", "N9", None]),
        purpose=PURPOSES,
        fields=FIELDS,
        subjects=st.none() | st.lists(SUBJECTS, max_size=2).map(tuple),
        starts=st.none() | MOMENTS,
        ends=st.none() | MOMENTS,
        entered_at=st.none() | MOMENTS,
        withdrawn_at=st.none() | MOMENTS,
    ),
    max_size=6,
)
# Most random values differ somewhere, so these approvals cover most accesses.
COVERING = st.lists(
    KEYS.map(
        lambda key: Approval(
            key, "N1", "N9", "delivery", None, None, moment(-400), moment(100), moment(-400), None
        )
    ),
    max_size=6,
    unique_by=lambda approval: approval.approval,
)
COVERED = st.lists(
    st.builds(
        Access,
        access=st.integers(41, 80),
        person=st.just("N1"),
        subject=SUBJECTS,
        purpose=st.sampled_from(["delivery", "delivery", "private"]),
        fields=FIELDS,
        at=MOMENTS,
        approval=KEYS,
    ),
    max_size=12,
)


def insert(company: AccessCompany, table: str, rows: Sequence[Access | Approval]) -> None:
    with psycopg.connect(company.source, autocommit=True) as connection:
        for row in rows:
            values: dict[str, Any] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asdict(row).items()
            }
            columns = ", ".join(values)
            places = ", ".join(["%s"] * len(values))
            query = f"INSERT INTO {table} ({columns}) VALUES ({places})"
            connection.execute(query.encode(), list(values.values()))


@shared
@given(ACCESSES | COVERED, APPROVALS | COVERING)
def test_full_comparison_finds_exactly_the_violations_of_the_oracle(
    company: AccessCompany, accesses: list[Access], approvals: list[Approval]
):
    company.reset()
    insert(company, "seen", accesses)
    insert(company, "permit", approvals)
    comparison = company.compare()
    assert company.violations() == oracle.violations(accesses, approvals)
    assert comparison.accesses == len(accesses)
    assert comparison.never_used == len(oracle.never_used(accesses, approvals, NOON))
    assert comparison.fields_unknown == sum(access.fields is None for access in accesses)


@shared
@given(
    st.lists(ACCESSES | COVERED, min_size=2, max_size=5), APPROVALS | COVERING, st.integers(1, 30)
)
def test_incremental_comparisons_of_late_accesses_equal_one_full_comparison(
    company: AccessCompany, batches: list[list[Access]], approvals: list[Approval], hours: int
):
    """Each batch is logged an hour after the previous one, at most an overlap late."""
    company.reset()
    company.rules = access_rules(overlap=f"PT{hours}H")
    insert(company, "permit", approvals)
    logged: list[Access] = []
    newest: datetime | None = None
    for number, batch in enumerate(batches):
        company.now = NOON + timedelta(hours=number)
        first = newest - timedelta(hours=hours) if newest else None
        in_time = [
            replace(access, access=access.access + 100 * number)
            for access in batch
            if first is None or (access.at is not None and access.at >= first)
        ]
        insert(company, "seen", in_time)
        logged += in_time
        comparison = company.compare()
        assert comparison.full is (newest is None)
        past = [access.at for access in logged if access.at and access.at <= company.now]
        newest = max(past, default=None)
        assert company.violations() == oracle.violations(logged, approvals)
    company.rules = access_rules()
    company.parameters = {"full": True}
    assert company.compare().full
    assert company.violations() == oracle.violations(logged, approvals)
    assert company.violations("closed") == set()


@shared
@given(ACCESSES | COVERED, APPROVALS | COVERING, ACCESSES | COVERED, APPROVALS | COVERING)
def test_full_comparison_after_any_change_opens_and_closes_exactly_the_differences(
    company: AccessCompany,
    accesses: list[Access],
    approvals: list[Approval],
    later_accesses: list[Access],
    later_approvals: list[Approval],
):
    company.reset()
    insert(company, "seen", accesses)
    insert(company, "permit", approvals)
    company.compare()
    company.sql("TRUNCATE seen, permit")
    insert(company, "seen", later_accesses)
    insert(company, "permit", later_approvals)
    company.now += timedelta(days=7)
    assert company.compare().full
    before = oracle.violations(accesses, approvals)
    after = oracle.violations(later_accesses, later_approvals)
    assert company.violations() == after
    assert company.violations("closed") == before - after
    existing = {str(access.access) for access in later_accesses}
    assert {
        (row.access, row.kind): row.closed_because
        for row in company.entries()
        if row.state == "closed"
    } == {
        (access, kind): "covered" if access in existing else "access_deleted"
        for access, kind in before - after
    }
