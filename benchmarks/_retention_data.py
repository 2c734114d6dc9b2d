"""The tables of the retention benchmark, and their record classes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from include.erasure.ledger import ErasureKeys
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField
from include.policy.retention import Disposition, RetentionRule

DATABASE = "bench"
KEYS = ErasureKeys({"1": bytes(range(32))}, "1")
HELD = tuple(str(number) for number in range(7, 1_000, 50))  # customers on legal hold
MONTHS, LIVE = 36, 6
_EVERYBODY = {"records": 10**12, "percent": "100%"}

# Records are stored near others of the same time, as if inserted one after the other, but their
# order varies by 0.5% of the table. Rows have about 180 bytes.
_PARCELS = """
CREATE TABLE parcel (
    id bigint NOT NULL, customer_id bigint NOT NULL, created_at timestamptz NOT NULL,
    status integer NOT NULL, note text NOT NULL);
CREATE TABLE scan (
    id bigint NOT NULL, parcel_id bigint NOT NULL, customer_id bigint NOT NULL,
    scanned_at timestamptz NOT NULL, place text NOT NULL);
SELECT setseed(0.5);
INSERT INTO parcel
SELECT n, 1 + n * 7919 % greatest({rows} / 10, 1),
       {cutoff}::timestamptz + interval '2 seconds' *
           trunc(n - {rows} * 0.3 + (random() - 0.5) * {rows} * 0.01) + interval '1 second',
       0, repeat('parcel ' || n || ' ', 8)
FROM generate_series(1::bigint, {rows}) AS n;
INSERT INTO scan
SELECT p.id, p.id, p.customer_id, p.created_at, 'depot ' || p.id % 500
FROM parcel AS p WHERE p.id % 10 IN (1, 4, 7);
ALTER TABLE parcel ADD PRIMARY KEY (id);
CREATE INDEX ON parcel (customer_id);
ALTER TABLE scan ADD PRIMARY KEY (id);
CREATE INDEX ON scan (parcel_id);
ALTER TABLE scan ADD FOREIGN KEY (parcel_id) REFERENCES parcel (id);
"""
_EVENTS = """
CREATE TABLE event (
    id bigint NOT NULL, customer_id bigint NOT NULL, happened_at timestamptz NOT NULL,
    note text NOT NULL) PARTITION BY RANGE (happened_at);
"""
_MONTH = """
CREATE TABLE event_{at} PARTITION OF event FOR VALUES
    FROM ({newest}::timestamptz - interval '{from_} months')
    TO ({newest}::timestamptz - interval '{to} months');
INSERT INTO event_{at}
SELECT {at} * {rows} + n, 1 + n * 7919 % greatest({rows} / 3, 1),
       {newest}::timestamptz - interval '{from_} months' + interval '27 days' * n / {rows},
       repeat('event ' || n || ' ', 9)
FROM generate_series(1::bigint, {rows}) AS n;
"""
_EVENT_KEYS = "ALTER TABLE event ADD PRIMARY KEY (id, happened_at); CREATE INDEX ON event (id)"


def make_parcels(connection: psycopg.Connection, rows: int, cutoff: datetime) -> None:
    """Create parcels and their scans; 30% of them are older than the cutoff."""
    connection.execute(_PARCELS.format(rows=rows, cutoff=f"'{cutoff.isoformat()}'").encode())
    connection.execute("VACUUM (ANALYZE) parcel, scan")


def make_events(connection: psycopg.Connection, rows: int, newest: datetime) -> None:
    """Create monthly partitions of events for the 36 months before a time."""
    connection.execute(_EVENTS)
    monthly_rows = max(1, rows // MONTHS)
    for at in range(MONTHS):
        fields = {"at": at, "rows": monthly_rows, "from_": MONTHS - at, "to": MONTHS - at - 1}
        connection.execute(_MONTH.format(newest=f"'{newest.isoformat()}'", **fields).encode())
    connection.execute(_EVENT_KEYS)
    connection.execute("VACUUM (ANALYZE) event")


def mapped(collections: Sequence[str]) -> MappedDatabase:
    """Return a data map that names only the tables. Their columns are read from the database."""
    return MappedDatabase(
        name=DATABASE,
        title=verbatim(DATABASE),
        connection="bench_db",
        rto=timedelta(),
        rpo=timedelta(),
        schema_name="public",
        collections={
            name: MappedCollection(
                name=name,
                schema_name="public",
                table=name,
                fields={"id": MappedField(name="id", primary_key=True)},
            )
            for name in collections
        },
    )


def rules(collections: Sequence[str]) -> list[RetentionRule]:
    """Return the record classes of tables, in the order of the data map."""
    clocks = {"parcel": "created_at", "scan": "scanned_at", "event": "happened_at"}
    return [
        RetentionRule.model_validate(
            {
                "class": f"{name}_record",
                "collection": name,
                "clock": clocks[name],
                "period": "P6M" if name == "event" else "P3Y",
                "action": "drop_partition" if name == "event" else "delete",
                "basis": "business",
                "keys": {"subject": "t.customer_id"},
                "limit": _EVERYBODY,
            }
        )
        for name in collections
    ]


def disposition() -> Disposition:
    """Return the rules of an empty disposition.yaml."""
    return Disposition()


def not_held(alias: str) -> str:
    """Return the condition in plain SQL that a record is not on hold.

    Args:
        alias: alias of the record's table in the query.
    """
    values = ", ".join(f"'{customer}'" for customer in HELD)
    return f"({alias}.customer_id::text = ANY (ARRAY[{values}])) IS NOT TRUE"
