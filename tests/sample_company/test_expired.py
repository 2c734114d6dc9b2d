"""Tests that the answer sheet lists the expired records and the expired records that are kept."""

from __future__ import annotations

from calendar import isleap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy import SHIPPED
from include.policy.retention import RetentionRule, SqlClock
from include.registry import load_pack
from include.sample_company import AnswerSheet, Rates, load
from include.sample_company.world import World
from tests.sample_company.conftest import AS_OF, Sample

RULES = {rule.collection: rule for rule in load_pack(SHIPPED).retention if rule.deletes}
# by collection: the rule for expired records, and the rules for expired records that are kept
SHEET = {
    "waybill": (
        "expired_waybill",
        ("expired_waybill_open_complaint", "expired_waybill_kept_by_proof"),
    ),
    "delivery_proof": ("expired_delivery_proof", ("expired_delivery_proof_open_complaint",)),
    "complaint": ("expired_complaint", ()),
    "access_log": ("expired_access_log", ()),
    "approval": ("expired_approval", ("expired_approval_kept_by_access",)),
    "share_log": ("expired_share", ()),
    "consent": ("expired_consent", ("expired_consent_kept_by_share",)),
    "address": ("expired_address", ()),
    "training_completion": ("expired_training", ()),
    "intake_record": ("expired_incoming_record", ()),
    "customer": ("expired_customer", ("expired_customer_kept_by_share",)),
}
REFERENCES = """
SELECT conrelid::regclass::text, confrelid::regclass::text,
  (SELECT array_agg(attname::text ORDER BY o) FROM unnest(conkey) WITH ORDINALITY u (n, o)
   JOIN pg_attribute ON attrelid = conrelid AND attnum = n),
  (SELECT array_agg(attname::text ORDER BY o) FROM unnest(confkey) WITH ORDINALITY u (n, o)
   JOIN pg_attribute ON attrelid = confrelid AND attnum = n),
  confdeltype IN ('n', 'd')
FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
"""


def expiry_condition(rule: RetentionRule) -> str:
    """Return the SQL condition that a record is expired, from the retention schedule alone."""
    assert isinstance(rule.clock, SqlClock) or len(rule.clock) == 1
    clock = rule.clock.sql if isinstance(rule.clock, SqlClock) else f"t.{rule.clock[0]}"
    periods = [rule.period, *(minimum.period for minimum in rule.minimum)]
    assert not any(minimum.clock for minimum in rule.minimum)
    return " AND ".join(f"({clock}) + interval '{period.text}' < %(now)s" for period in periods)


def expired_keys(connection: psycopg.Connection[Any], now: datetime, table: str) -> set[int]:
    """Return the keys of the expired records of a collection."""
    selection = RULES[table].where or "true"
    condition = f"{selection} AND {expiry_condition(RULES[table])}"
    query = f"SELECT {KEYS[table]} FROM {table} t WHERE {condition}"
    return {row[0] for row in connection.execute(query.encode(), {"now": now})}


KEYS = {
    "waybill": "waybill_id", "delivery_proof": "proof_id", "complaint": "complaint_id",
    "access_log": "access_id", "approval": "approval_id", "share_log": "share_id",
    "consent": "consent_id", "address": "address_id", "training_completion": "completion_id",
    "intake_record": "intake_id", "customer": "customer_id",
}  # fmt: skip


def deletable_keys(
    connection: psycopg.Connection[Any],
    now: datetime,
    held: Mapping[str, set[int]] | None = None,
) -> dict[str, set[int]]:
    """Return the keys of the expired records that may be deleted, by collection.

    A record may not be deleted in three cases: a condition of the retention schedule suspends its
    deletion, it is on hold, or a record that is kept references it. A reference that becomes null
    when its target is deleted does not keep the target, unless the referencing record is on hold.

    Args:
        connection: connection to the sample database.
        now: time of the disposition.
        held: keys of records on legal hold, by collection.
    """
    held = held or {}
    deletable = {}
    for table, rule in RULES.items():
        deletable[table] = expired_keys(connection, now, table) - held.get(table, set())
        if rule.suspended:
            query = f"SELECT {KEYS[table]} FROM {table} t WHERE {rule.suspended.where}"
            deletable[table] -= {row[0] for row in connection.execute(query.encode())}
    links = []  # (child table, parent table, pairs of keys)
    for child, parent, columns, targets, nulled in connection.execute(REFERENCES).fetchall():
        if parent not in RULES:
            continue
        match = " AND ".join(f"c.{c} = p.{t}" for c, t in zip(columns, targets, strict=True))
        query = (
            f"SELECT c.{KEYS[child]}, p.{KEYS[parent]} FROM {child} c JOIN {parent} p ON {match}"
        )
        pairs = connection.execute(query.encode()).fetchall()
        if nulled or set(RULES[parent].detach) & {f"{child}.{column}" for column in columns}:
            pairs = [pair for pair in pairs if pair[0] in held.get(child, ())]
        links.append((child, parent, pairs))
    while True:
        before = sum(map(len, deletable.values()))
        for child, parent, pairs in links:
            deletable[parent] -= {key for by, key in pairs if by not in deletable[child]}
        if sum(map(len, deletable.values())) == before:
            return deletable


def check(connection: psycopg.Connection[Any], sheet: AnswerSheet, now: datetime) -> None:
    """Require that the answer sheet lists exactly the expired and the deletable records."""
    deletable = deletable_keys(connection, now)
    for table, (rule, kept) in SHEET.items():
        named = set(sheet.planted[rule].keys())
        assert named == expired_keys(connection, now, table), rule
        for kept_rule in kept:
            named -= set(sheet.planted[kept_rule].keys())
        assert named == deletable[table], kept


def test_answer_sheet_has_a_rule_for_each_record_class_whose_records_are_deleted() -> None:
    """Each collection has at most one such record class. The tests cover all of them."""
    assert set(SHEET) == set(RULES) == set(KEYS)


def test_answer_sheet_lists_expired_records_and_those_that_must_be_kept(sample: Sample) -> None:
    """The sample is generated for a time in the night of 1 March, two years after a leap day."""
    check(sample.connection, sample.sheet, AS_OF)


@pytest.mark.parametrize(
    ("customers", "now"),
    [
        (1200, datetime(2028, 2, 29, 9, 0, tzinfo=UTC)),
        (1200, datetime(2027, 2, 28, 9, 0, tzinfo=UTC)),
        (60, datetime(2026, 7, 15, 3, 0, tzinfo=UTC)),
    ],
)
def test_answer_sheet_lists_expired_records_for_samples_of_other_times_and_sizes(
    database: str, customers: int, now: datetime
) -> None:
    """In small samples, the first customers come from batches of incoming records."""
    with psycopg.connect(database) as connection:
        sheet = load(connection, customers=customers, as_of=now)
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        check(connection, sheet, now)


def add_years(moment: datetime, years: int) -> datetime:
    """Add calendar years as PostgreSQL and the Civil Code (article 202) do."""
    if (moment.month, moment.day) == (2, 29) and not isleap(moment.year + years):
        moment -= timedelta(days=1)
    return moment.replace(year=moment.year + years)


SHANGHAI = timezone(timedelta(hours=8))
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)) | st.builds(  # noqa: DTZ001 - zoned below
    lambda year, hours: datetime(year, 2, 27) + timedelta(hours=hours),  # noqa: DTZ001 - zoned below
    st.integers(2020, 2040),
    st.integers(0, 96),
)


@given(MOMENTS, MOMENTS, st.sampled_from([2, 3]), st.integers(-90_000, 90_000))
def test_past_is_true_exactly_if_time_plus_given_calendar_years_is_before_now(
    now: datetime, other: datetime, years: int, near: int
) -> None:
    """The test uses random times, and times near the end of the period, including leap days."""
    now = now.replace(microsecond=0, tzinfo=SHANGHAI)
    other = other.replace(microsecond=0, tzinfo=SHANGHAI)
    world = World(1, 1, now, Rates())
    close = datetime.fromtimestamp(world.years_ago(years) + near, SHANGHAI)
    for start in (other, close):
        seconds = np.array([int(start.timestamp())])
        assert bool(world.past(seconds, years)[0]) == (add_years(start, years) < now)
