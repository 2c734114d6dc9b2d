"""Expectations of the shipped pack, checked on consent histories that the sample company lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.expectations.broken import KeyList
from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records
from include.policy import SHIPPED
from include.registry import load_pack

START = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = """
CREATE TABLE customer (
    customer_id bigint PRIMARY KEY, marketing_subscribed boolean, birth_date date
);
CREATE TABLE consent (
    customer_id bigint, purpose text, given_at timestamptz, withdrawn_at timestamptz,
    by_guardian boolean
);
"""
# Consents: purpose, day, and the days until withdrawal or None
CONSENTS = st.lists(
    st.tuples(
        st.sampled_from(["marketing", "delivery"]),
        st.integers(0, 6),
        st.none() | st.integers(0, 4),
    ),
    max_size=5,
)


@pytest.fixture
def courier(database: str) -> Iterator[psycopg.Connection]:
    """Provide empty tables of customers and consents."""
    with psycopg.connect(database) as connection:
        connection.execute(TABLES)
        yield connection


def broken(connection: psycopg.Connection, rule: str) -> set[int]:
    """Return the ids of the customers whose records break an expectation of the shipped pack."""
    database = load_pack(SHIPPED).database("courier")
    (expectation,) = [
        candidate
        for suite in load_pack(SHIPPED).suites_of("courier")
        for candidate in suite.expectations
        if candidate.id == rule
    ]
    records = Records(
        database.collections["customer"],
        database,
        ("customer_id", "marketing_subscribed", "birth_date"),
        ("customer_id",),
    )
    keys = KeyList()
    check = Check(Snapshot(connection), records, [expectation], START, keys)
    (result,) = check.run()
    assert result.fault is None
    return {int(key) for (key,) in keys.keys[rule]}


def enter(
    connection: psycopg.Connection, histories: Sequence[list[tuple[str, int, int | None]]]
) -> None:
    """Insert customers, numbered from 0, each with a consent history.

    Args:
        connection: connection to the courier's database.
        histories: for each customer, the purpose, the day of each consent, and the number of days
            until its withdrawal, or None if it was not withdrawn.
    """
    for customer, history in enumerate(histories):
        connection.execute("INSERT INTO customer VALUES (%s, true)", [customer])
        for purpose, day, kept in history:
            given_at = START + timedelta(days=day)
            ended = None if kept is None else given_at + timedelta(days=kept)
            connection.execute(
                "INSERT INTO consent VALUES (%s, %s, %s, %s)",
                [customer, purpose, given_at, ended],
            )


def test_expectation_consent_withdrawn_passes_if_consent_was_given_again_after_withdrawal(
    courier: psycopg.Connection,
) -> None:
    """Only the last decision of the customer counts."""
    enter(
        courier,
        [
            [("marketing", 0, 2)],
            [("marketing", 0, 2), ("marketing", 3, None)],
            [("marketing", 0, 2), ("marketing", 3, 1)],
            [("marketing", 0, 2), ("delivery", 3, None)],
            [("marketing", 0, 2), ("marketing", 1, None)],
            [("marketing", 0, 2), ("marketing", 2, None)],  # renewed at the time of the withdrawal
        ],
    )
    assert broken(courier, "consent_withdrawn") == {0, 2, 3, 4}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(CONSENTS, max_size=12))
def test_expectation_consent_withdrawn_agrees_with_a_simple_model_for_random_consents(
    courier: psycopg.Connection, histories: list[list[tuple[str, int, int | None]]]
) -> None:
    expected = set()
    for customer, history in enumerate(histories):
        marketing = [(day, kept) for purpose, day, kept in history if purpose == "marketing"]
        ends = [day + kept for day, kept in marketing if kept is not None]
        live = [day for day, kept in marketing if kept is None]
        if ends and max(live, default=-1) < max(ends):
            expected.add(customer)
    with courier.transaction(force_rollback=True):
        enter(courier, histories)
        assert broken(courier, "consent_withdrawn") == expected


@pytest.mark.parametrize(
    ("born", "consents", "good"),
    [
        ("2016-01-01", [], False),
        ("2016-01-01", [("by_guardian", None)], True),
        ("2016-01-01", [("alone", None)], False),
        ("2016-01-01", [("by_guardian", START)], False),
        ("2016-01-01", [("alone", START), ("by_guardian", None)], True),
        ("2012-01-02", [], False),
        ("2012-01-01", [], True),
    ],
)
def test_expectation_about_minors_fails_for_child_under_14_without_guardian_consent(
    courier: psycopg.Connection,
    born: str,
    consents: list[tuple[str, datetime | None]],
    good: bool,
) -> None:
    """The expectation no longer applies from the 14th birthday (PIPL articles 31 and 15)."""
    courier.execute("INSERT INTO customer VALUES (1, false, %s)", [born])
    for giver, ended in consents:
        courier.execute(
            "INSERT INTO consent VALUES (1, 'delivery', '2025-01-01', %s, %s)",
            [ended, giver == "by_guardian"],
        )
    assert broken(courier, "minor_without_guardian_consent") == (set() if good else {1})
