"""Rules of the shipped pack on histories that its sample company does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.expectations.broken import Kept
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
# Given on a day, and withdrawn some days later or not at all
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
    """A courier's customers and their consents; none yet."""
    with psycopg.connect(database) as connection:
        connection.execute(TABLES)
        yield connection


def broken(connection: psycopg.Connection, rule: str) -> set[int]:
    """Customers that break a rule of the shipped pack."""
    database = load_pack(SHIPPED).database("courier")
    (found,) = [
        one
        for suite in load_pack(SHIPPED).suites_of("courier")
        for one in suite.expectations
        if one.id == rule
    ]
    records = Records(
        database.collections["customer"],
        database,
        ("customer_id", "marketing_subscribed", "birth_date"),
        ("customer_id",),
    )
    kept = Kept()
    check = Check(Snapshot(connection), records, [found], START, kept)
    (result,) = check.run()
    assert result.fault is None
    return {int(key) for (key,) in kept.keys[rule]}


def enter(
    connection: psycopg.Connection, histories: Sequence[list[tuple[str, int, int | None]]]
) -> None:
    """Each history is one customer's, numbered from 0."""
    for customer, history in enumerate(histories):
        connection.execute("INSERT INTO customer VALUES (%s, true)", [customer])
        for purpose, day, kept in history:
            given_at = START + timedelta(days=day)
            ended = None if kept is None else given_at + timedelta(days=kept)
            connection.execute(
                "INSERT INTO consent VALUES (%s, %s, %s, %s)",
                [customer, purpose, given_at, ended],
            )


def test_who_consented_again_after_a_withdrawal_may_receive_advertising(
    courier: psycopg.Connection,
) -> None:
    """The last word counts: consent again, withdrawn again, and a consent older than the end."""
    enter(
        courier,
        [
            [("marketing", 0, 2)],
            [("marketing", 0, 2), ("marketing", 3, None)],
            [("marketing", 0, 2), ("marketing", 3, 1)],
            [("marketing", 0, 2), ("delivery", 3, None)],
            [("marketing", 0, 2), ("marketing", 1, None)],
            [("marketing", 0, 2), ("marketing", 2, None)],  # renewed in one moment
        ],
    )
    assert broken(courier, "consent_withdrawn") == {0, 2, 3, 4}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(CONSENTS, max_size=12))
def test_a_withdrawal_counts_when_it_was_the_last_word(
    courier: psycopg.Connection, histories: list[list[tuple[str, int, int | None]]]
) -> None:
    """Whatever the order and the number of consents to one purpose."""
    expected = set()
    for customer, history in enumerate(histories):
        asked = [(day, kept) for purpose, day, kept in history if purpose == "marketing"]
        ends = [day + kept for day, kept in asked if kept is not None]
        live = [day for day, kept in asked if kept is None]
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
def test_the_guardian_of_a_child_consented(
    courier: psycopg.Connection,
    born: str,
    consents: list[tuple[str, datetime | None]],
    good: bool,
) -> None:
    """And did not withdraw it; who is 14 today is none (PIPL 31 and 15)."""
    courier.execute("INSERT INTO customer VALUES (1, false, %s)", [born])
    for who, ended in consents:
        courier.execute(
            "INSERT INTO consent VALUES (1, 'delivery', '2025-01-01', %s, %s)",
            [ended, who == "by_guardian"],
        )
    assert broken(courier, "minor_without_guardian_consent") == (set() if good else {1})
