"""The answer sheet says of every expired record whether it goes, by the shipped schedule."""

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

RULES = {one.collection: one for one in load_pack(SHIPPED).retention if one.deletes}
# collection -> the sheet's rule of what is expired, and those of what of it stays
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


def due(rule: RetentionRule) -> str:
    """The condition that a record is expired, from the schedule alone."""
    assert isinstance(rule.clock, SqlClock) or len(rule.clock) == 1
    clock = rule.clock.sql if isinstance(rule.clock, SqlClock) else f"t.{rule.clock[0]}"
    periods = [rule.period, *(one.period for one in rule.minimum)]
    assert not any(one.clock for one in rule.minimum)
    return " AND ".join(f"({clock}) + interval '{one.text}' < %(now)s" for one in periods)


def expired(connection: psycopg.Connection[Any], now: datetime, table: str) -> set[int]:
    """Keys of the expired records of a collection."""
    which = RULES[table].where or "true"
    query = f"SELECT {KEYS[table]} FROM {table} t WHERE {which} AND {due(RULES[table])}"
    return {row[0] for row in connection.execute(query.encode(), {"now": now})}


KEYS = {
    "waybill": "waybill_id", "delivery_proof": "proof_id", "complaint": "complaint_id",
    "access_log": "access_id", "approval": "approval_id", "share_log": "share_id",
    "consent": "consent_id", "address": "address_id", "training_completion": "completion_id",
    "intake_record": "intake_id", "customer": "customer_id",
}  # fmt: skip


def goes(
    connection: psycopg.Connection[Any],
    now: datetime,
    held: Mapping[str, set[int]] | None = None,
) -> dict[str, set[int]]:
    """What goes: expired, not suspended or held, and kept by no reference. By set algebra.

    A record that stays keeps what it refers to, unless the key is set to null; one that is held
    keeps it even so.
    """
    held = held or {}
    found = {}
    for table, rule in RULES.items():
        found[table] = expired(connection, now, table) - held.get(table, set())
        if rule.suspended:
            query = f"SELECT {KEYS[table]} FROM {table} t WHERE {rule.suspended.where}"
            found[table] -= {row[0] for row in connection.execute(query.encode())}
    links = []  # (child table, parent table, pairs of keys)
    for child, parent, columns, targets, nulled in connection.execute(REFERENCES).fetchall():
        if parent not in RULES:
            continue
        match = " AND ".join(f"c.{c} = p.{t}" for c, t in zip(columns, targets, strict=True))
        query = (
            f"SELECT c.{KEYS[child]}, p.{KEYS[parent]} FROM {child} c JOIN {parent} p ON {match}"
        )
        pairs = connection.execute(query.encode()).fetchall()
        if nulled or set(RULES[parent].detach) & {f"{child}.{one}" for one in columns}:
            pairs = [pair for pair in pairs if pair[0] in held.get(child, ())]
        links.append((child, parent, pairs))
    while True:
        before = sum(map(len, found.values()))
        for child, parent, pairs in links:
            found[parent] -= {key for by, key in pairs if by not in found[child]}
        if sum(map(len, found.values())) == before:
            return found


def check(connection: psycopg.Connection[Any], sheet: AnswerSheet, now: datetime) -> None:
    """Compare with the sheet: what is expired, and what of it goes."""
    gone = goes(connection, now)
    for table, (rule, kept) in SHEET.items():
        named = set(sheet.planted[rule].keys())
        assert named == expired(connection, now, table), rule
        for one in kept:
            named -= set(sheet.planted[one].keys())
        assert named == gone[table], kept


def test_every_deleting_class_has_its_rule() -> None:
    """One class for each collection, and none of the sheet's rules about expiry is forgotten."""
    assert set(SHEET) == set(RULES) == set(KEYS)


def test_the_sheet_explains_every_expired_record_that_stays(sample: Sample) -> None:
    """On 1 March two years after a leap day, at night."""
    check(sample.connection, sample.sheet, AS_OF)


@pytest.mark.parametrize(
    ("customers", "now"),
    [
        (1200, datetime(2028, 2, 29, 9, 0, tzinfo=UTC)),
        (1200, datetime(2027, 2, 28, 9, 0, tzinfo=UTC)),
        (60, datetime(2026, 7, 15, 3, 0, tzinfo=UTC)),
    ],
)
def test_it_does_so_at_other_moments_and_sizes(
    database: str, customers: int, now: datetime
) -> None:
    """Also where a batch of incoming records holds the first customers."""
    with psycopg.connect(database) as connection:
        sheet = load(connection, customers=customers, as_of=now)
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        check(connection, sheet, now)


def later(moment: datetime, years: int) -> datetime:
    """The moment plus calendar years, as PostgreSQL and the Civil Code (202) count."""
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
def test_a_period_is_over_when_moment_plus_years_is_past(
    now: datetime, then: datetime, years: int, near: int
) -> None:
    """For any moment, and for those about the end of the period; leap days included."""
    now = now.replace(microsecond=0, tzinfo=SHANGHAI)
    then = then.replace(microsecond=0, tzinfo=SHANGHAI)
    world = World(1, 1, now, Rates())
    close = datetime.fromtimestamp(world.years_ago(years) + near, SHANGHAI)
    for one in (then, close):
        moment = np.array([int(one.timestamp())])
        assert bool(world.past(moment, years)[0]) == (later(one, years) < now)
