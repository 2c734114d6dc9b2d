"""How long letting a batch in takes, against a bare INSERT ... SELECT of the same rows.

Both make the same formal records of the sample courier: customer, address, consent, with every
foreign key checked. Ours is all that a settlement does in this database: it looks for its own work,
hashes the batch, holds the rules of the quality suite and the pack's own checks against it, and
marks every incoming row with state, reviewer, time and formal record. The rounds alternate; each
starts from the same freshly vacuumed tables.
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
from include.intake.names import Incoming

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
    """Median seconds of the rounds.

    Attributes:
        rows: of the batch.
        ours: hash, rules, promotion and commit.
        bare: three INSERT ... SELECT and commit.
    """

    rows: int
    ours: float
    bare: float

    @property
    def ratio(self) -> float:
        """Ours over bare."""
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
    """Measure on a sample database that may be changed; what is made is removed again.

    Args:
        conninfo: of the database's owner.
        incoming: the sample's incoming table, of the shipped pack.
        checkers: as the workflow has them; every row satisfies them.
        now: the moment of the decision.
        rows: of the batch.
        rounds: of each kind.
    """
    load_engine()  # a task's process has done so when it begins to settle
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
        promote.settled_by(connection, incoming, BATCH, approved=True, **act)
        batches.content(connection, incoming, BATCH)
        where = incoming.pending(BATCH)
        verdicts, broken = checks.broken_by_rule(checkers, connection, where, now)
        if broken or any(one.broken is None for one in verdicts):
            raise SystemExit(f"The rows of the benchmark break rules: {', '.join(broken)}")
        promote.promote(connection, incoming, BATCH, broken=(), **act)


def _bare(connection: psycopg.Connection[Any], now: datetime) -> None:
    given = {"batch": BATCH, "reviewer": _reviewer(connection), "at": now}
    with connection.transaction():
        for statement in _BARE:
            connection.execute(statement, given)


def _clear(connection: psycopg.Connection[Any]) -> None:
    """Take everything of the round away, foreign keys aside: nothing else refers to it."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        made = "SELECT customer_id FROM customer WHERE name ~ '^王[0-9]+$'"
        for table in ("consent", "address"):
            query = SQL("DELETE FROM {} WHERE customer_id IN ({})")
            connection.execute(query.format(Identifier(table), SQL(made)))
        connection.execute("DELETE FROM customer WHERE name ~ '^王[0-9]+$'")
        connection.execute("DELETE FROM intake_record WHERE batch_id = %s", [BATCH])
