"""Tables of the sampling benchmark, and the populations that are drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import psycopg

from include.policy.datamap import MappedDatabase
from include.sampling.frame import Quarter
from include.sampling.rules import Population

DATABASE = "bench"
QUARTER = Quarter(2026, 3, ZoneInfo("Asia/Shanghai"))
NUMBERS, TEXTS = "numbers", "texts"
STRATA = 14

# Numbers come in their order, as a sequence gives them: PostgreSQL then reads them sorted from the
# index, which makes the plain export as quick as it can be. Texts lie in no order and have to be
# sorted. Departments differ: the largest holds a half, each other one half of what is left, the
# last two as much as each other.
_NUMBERS = """
CREATE TABLE numbers (id bigint NOT NULL, happened_at timestamptz NOT NULL);
INSERT INTO numbers
SELECT n, '2026-08-01' FROM generate_series(1::bigint, {rows}) AS n;
ALTER TABLE numbers ADD PRIMARY KEY (id);
"""
_TEXTS = """
CREATE TABLE texts (id text NOT NULL, department text NOT NULL, happened_at timestamptz NOT NULL);
INSERT INTO texts
SELECT 'SF' || lpad((n * 7919 % {rows})::text, 10, '0'),
       'Branch ' || to_char(least(-floor(log(2.0, n / ({rows} + 1)::numeric)), {strata}), 'FM00'),
       '2026-08-01'
FROM generate_series(1::bigint, {rows}) AS n;
ALTER TABLE texts ADD PRIMARY KEY (id);
"""
_PERIOD = "happened_at >= {starts} AND happened_at < {ends}"
_PLAIN = {
    NUMBERS: "SELECT id FROM numbers WHERE {period} ORDER BY id",
    TEXTS: 'SELECT id, department FROM texts WHERE {period} ORDER BY id COLLATE "C"',
}
_OURS = {
    NUMBERS: "SELECT n.id FROM period, numbers n",
    TEXTS: "SELECT n.id, n.department AS stratum FROM period, texts n",
}
_WITHIN = " WHERE n.happened_at >= period.starts AND n.happened_at < period.ends"


def make(connection: psycopg.Connection, rows: int) -> None:
    """Make both tables; texts are unique where 7919 does not divide the rows."""
    for one in (_NUMBERS, _TEXTS):
        connection.execute(one.format(rows=rows, strata=STRATA).encode())
    connection.execute("VACUUM (ANALYZE) numbers, texts")


def plain(name: str) -> str:
    """The sorted export that whoever has no such workflow would write."""
    within = {"starts": QUARTER.starts, "ends": QUARTER.ends}
    period = _PERIOD.format(**{key: f"'{at.isoformat()}'" for key, at in within.items()})
    return f"COPY ({_PLAIN[name].format(period=period)}) TO STDOUT"


def population(name: str) -> Population:
    """The population of audit.yaml."""
    words = {"en": name, "zh-CN": name}
    return Population.model_validate(
        {
            "id": name,
            "title": words,
            "owner": "management",
            "database": DATABASE,
            "sql": _OURS[name] + _WITHIN,
            "tolerable": "5%",
            "attributes": [{"id": "approved", "question": words, "basis": "business"}],
            **({"strata": words} if name == TEXTS else {}),
        }
    )


def mapped() -> MappedDatabase:
    """The data map: populations name their tables themselves."""
    return MappedDatabase(
        name=DATABASE,
        title=DATABASE,
        connection="bench_db",
        rto=timedelta(),
        rpo=timedelta(),
        schema_name="public",
        collections={},
    )


@dataclass(frozen=True)
class Asked:
    """A size or an upper limit that auditors ask for.

    Attributes:
        tolerable: rate of deviations from which on the population is not accepted.
        expected: rate that is expected.
        confidence: one minus the risk of accepting what deviates at the tolerable rate.
    """

    tolerable: str
    expected: str
    confidence: str


# The shipped pack's rates, and those of the AICPA's table around them.
USUAL = tuple(
    Asked(tolerable, expected, confidence)
    for confidence in ("90%", "95%", "99%")
    for tolerable, expecteds in (
        ("2%", ("0%", "0.5%")),
        ("4%", ("0%", "1%")),
        ("5%", ("0%", "1%", "2%")),
        ("7%", ("0%", "1%", "3%")),
        ("10%", ("0%", "2%", "4%")),
        ("20%", ("0%", "4%")),
    )
    for expected in expecteds
)
EXTREMES = (Asked("5%", "4.9%", "95%"), Asked("5%", "4.97%", "95%"))
POPULATIONS = (1, 10, 500, 10_000, 1_000_000, 1_000_000_000, None)
