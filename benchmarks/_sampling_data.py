"""The tables and populations of the sampling benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import psycopg

from include.messages import verbatim
from include.policy.datamap import MappedDatabase
from include.sampling.frame import Quarter
from include.sampling.rules import Population

DATABASE = "bench"
QUARTER = Quarter(2026, 3, ZoneInfo("Asia/Shanghai"))
NUMBERS, TEXTS = "numbers", "texts"
STRATA = 14

# Numbers are inserted in order, like the values of a sequence. PostgreSQL then reads them sorted
# from the index, so the plain export is as fast as possible. Texts are inserted unordered and must
# be sorted. The department sizes differ: the largest has half of the rows, each following one half
# of the rest, and the last two are equal.
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
_EXPORT = {
    NUMBERS: "SELECT id FROM numbers WHERE {period} ORDER BY id",
    TEXTS: 'SELECT id, department FROM texts WHERE {period} ORDER BY id COLLATE "C"',
}
_OURS = {
    NUMBERS: "SELECT n.id FROM period, numbers n",
    TEXTS: "SELECT n.id, n.department AS stratum FROM period, texts n",
}
_WITHIN = " WHERE n.happened_at >= period.starts AND n.happened_at < period.ends"


def create_tables(connection: psycopg.Connection, rows: int) -> None:
    """Create both tables. Texts are unique if 7919 does not divide the number of rows."""
    for statements in (_NUMBERS, _TEXTS):
        connection.execute(statements.format(rows=rows, strata=STRATA).encode())
    connection.execute("VACUUM (ANALYZE) numbers, texts")


def plain_export(name: str) -> str:
    """Return the sorted export that a person would write without ParcelSeal."""
    bounds = {"starts": QUARTER.starts, "ends": QUARTER.ends}
    period = _PERIOD.format(**{key: f"'{moment.isoformat()}'" for key, moment in bounds.items()})
    return f"COPY ({_EXPORT[name].format(period=period)}) TO STDOUT"


def population(name: str) -> Population:
    """Return the population as `audit.yaml` would define it."""
    label = {"en": name, "zh-CN": name}
    return Population.model_validate(
        {
            "id": name,
            "title": label,
            "owner": "management",
            "database": DATABASE,
            "sql": _OURS[name] + _WITHIN,
            "tolerable": "5%",
            "attributes": [{"id": "approved", "question": label, "basis": "business"}],
            **({"strata": label} if name == TEXTS else {}),
        }
    )


def mapped_database() -> MappedDatabase:
    """Return a data map without collections, because the populations name their tables in SQL."""
    return MappedDatabase(
        name=DATABASE,
        title=verbatim(DATABASE),
        connection="bench_db",
        rto=timedelta(),
        rpo=timedelta(),
        schema_name="public",
        collections={},
    )


@dataclass(frozen=True)
class SamplingQuestion:
    """The rates for which auditors ask for a sample size or an upper limit.

    Attributes:
        tolerable: tolerable deviation rate.
        expected: expected deviation rate.
        confidence: one minus the risk of accepting a population that deviates at the tolerable
            rate.
    """

    tolerable: str
    expected: str
    confidence: str


# The rates of the shipped pack and the neighboring ones of the AICPA's table.
USUAL = tuple(
    SamplingQuestion(tolerable, expected, confidence)
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
EXTREMES = (SamplingQuestion("5%", "4.9%", "95%"), SamplingQuestion("5%", "4.97%", "95%"))
POPULATIONS = (1, 10, 500, 10_000, 1_000_000, 1_000_000_000, None)
