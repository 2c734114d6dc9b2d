"""Compare the promotion of an incoming batch with a plain INSERT ... SELECT of the same rows.

Both create the same formal records of the sample courier (customer, address, consent), with every
foreign key checked. ParcelSeal's promotion is everything that the task `settle` does in this
database. It looks for earlier work of its own, hashes the batch, checks it against the expectations
and the conditions of the policy pack, and marks every incoming row with status, reviewer, time and
formal record. The two alternate, and each round starts with the same freshly vacuumed tables.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import median
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.expectations.check import load_engine
from include.intake import batches, checks, promote
from include.intake.incoming import Incoming

BATCH = "BENCH-1"

_FILL = """
INSERT INTO intake_record (batch_id, name, phone, id_number, email, division_code, street,
    consent_purposes, raw, entered_by, entered_at, status)
SELECT %(batch)s, '王' || g, '138' || lpad(g::text, 8, '0'),
    id.digits || substr('10X98765432', 1 + (
        SELECT sum(substr(id.digits, place::int, 1)::int * weight)::int
        FROM unnest(ARRAY[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2])
            WITH ORDINALITY AS w(weight, place)) %% 11, 1),
    'a' || g || '@example.com',
    (SELECT code FROM administrative_division WHERE retired_on IS NULL ORDER BY code LIMIT 1),
    '朝阳路' || g || '号', '{delivery}',
    jsonb_build_object('name', '王' || g, 'phone', '138' || lpad(g::text, 8, '0')),
    (SELECT min(employee_id) FROM employee WHERE department_id = 2), %(at)s, 'pending'
FROM generate_series(1, %(rows)s) AS g
CROSS JOIN LATERAL (
    SELECT '110101' || to_char(date '1930-01-01' + g / 10, 'YYYYMMDD') || (990 + g %% 10)
) AS id(digits)
"""

_BARE = (
    """
INSERT INTO customer (customer_id, name, phone, id_number, email, birth_date, status, record_class,
    department_id, default_address_id, marketing_subscribed, created_at, updated_at, verified_at,
    entered_by, reviewed_by, reviewed_at)
OVERRIDING SYSTEM VALUE
SELECT 900000000 + i.intake_id, i.name, i.phone, i.id_number, i.email,
    substr(i.id_number, 7, 8)::date, 'active', 'personal',
    (SELECT e.department_id FROM employee e WHERE e.employee_id = i.entered_by),
    900000000 + i.intake_id, 'marketing' = ANY (i.consent_purposes), i.entered_at, %(at)s,
    i.entered_at, i.entered_by, %(reviewer)s, %(at)s
FROM intake_record AS i WHERE i.batch_id = %(batch)s
""",
    """
INSERT INTO address (address_id, customer_id, division_code, province, city, district, street,
    is_default, created_at)
OVERRIDING SYSTEM VALUE
SELECT 900000000 + i.intake_id, 900000000 + i.intake_id, i.division_code, d.province, d.city,
    d.district, i.street, true, i.entered_at
FROM intake_record AS i JOIN administrative_division AS d ON d.code = i.division_code::char(6)
WHERE i.batch_id = %(batch)s
""",
    """
INSERT INTO consent (customer_id, purpose, notice_version_id, given_at, channel, by_guardian)
SELECT 900000000 + i.intake_id, p.purpose,
    (SELECT n.notice_version_id FROM notice_version n WHERE n.published_on <= i.entered_at
     ORDER BY n.published_on DESC, n.notice_version_id LIMIT 1), i.entered_at, 'app', false
FROM intake_record AS i CROSS JOIN unnest(i.consent_purposes) AS p(purpose)
WHERE i.batch_id = %(batch)s
""",
)


@dataclass(frozen=True)
class Promotion:
    """Median durations of a promotion.

    Attributes:
        rows: number of rows of the batch.
        ours: seconds of ParcelSeal's hash, checks, promotion and commit.
        bare: seconds of three INSERT ... SELECT statements and a commit.
    """

    rows: int
    ours: float
    bare: float

    @property
    def ratio(self) -> float:
        """The duration of ParcelSeal divided by that of the plain statements."""
        return self.ours / self.bare


def measure(
    conninfo: str,
    incoming: Incoming,
    checkers: Sequence[checks.Checker],
    now: datetime,
    *,
    rows: int = 100_000,
    rounds: int = 3,
) -> Promotion:
    """Measure both promotions on a sample database, and delete the created records.

    Args:
        conninfo: connection string with the login of the database's owner.
        incoming: the sample's incoming collection in the shipped policy pack.
        checkers: checks of the workflow, which every row passes.
        now: time of the decision on the batch.
        rows: number of rows of the batch.
        rounds: number of measurements of each promotion.
    """
    load_engine()  # a task's process has loaded it before the step `settle` begins
    took: dict[str, list[float]] = {"ours": [], "bare": []}
    kinds: dict[str, Callable[[psycopg.Connection[Any], datetime], None]] = {
        "ours": partial(_ours, incoming, checkers),
        "bare": _bare,
    }
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for number in range(rounds):
            order = ("ours", "bare") if number % 2 else ("bare", "ours")
            for kind in order:
                _fill(connection, rows, now)
                began = time.monotonic()
                kinds[kind](connection, now)
                took[kind].append(time.monotonic() - began)
                _clear(connection)
    return Promotion(rows, median(took["ours"]), median(took["bare"]))


def _fill(connection: psycopg.Connection[Any], rows: int, now: datetime) -> None:
    connection.execute(_FILL, {"batch": BATCH, "rows": rows, "at": now})
    connection.execute("VACUUM (ANALYZE) intake_record, customer, address, consent")
    connection.execute("CHECKPOINT")


def _reviewer(connection: psycopg.Connection[Any]) -> Any:
    row = connection.execute(
        "SELECT min(employee_id) FROM employee WHERE department_id = 3"
    ).fetchone()
    assert row is not None
    return row[0]


def _ours(
    incoming: Incoming,
    checkers: Sequence[checks.Checker],
    connection: psycopg.Connection[Any],
    now: datetime,
) -> None:
    with batches.unit_of_work(connection, incoming, write=True):
        act = {"reviewer": _reviewer(connection), "at": now}
        promote.earlier_settlement(connection, incoming, BATCH, approved=True, **act)
        batches.read_content(connection, incoming, BATCH)
        where = incoming.pending(BATCH)
        verdicts, broken = checks.broken_by_rule(checkers, connection, where, now)
        if broken or any(verdict.broken is None for verdict in verdicts):
            raise SystemExit(f"The rows of the benchmark break rules: {', '.join(broken)}")
        promote.promote(connection, incoming, BATCH, broken=(), **act)


def _bare(connection: psycopg.Connection[Any], now: datetime) -> None:
    values = {"batch": BATCH, "reviewer": _reviewer(connection), "at": now}
    with connection.transaction():
        for statement in _BARE:
            connection.execute(statement, values)


def _clear(connection: psycopg.Connection[Any]) -> None:
    """Delete all rows of a round. Foreign keys are not checked, since no row refers to them."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        new_customers = "SELECT customer_id FROM customer WHERE name ~ '^王[0-9]+$'"
        for table in ("consent", "address"):
            query = SQL("DELETE FROM {} WHERE customer_id IN ({})")
            connection.execute(query.format(Identifier(table), SQL(new_customers)))
        connection.execute("DELETE FROM customer WHERE name ~ '^王[0-9]+$'")
        connection.execute("DELETE FROM intake_record WHERE batch_id = %s", [BATCH])
