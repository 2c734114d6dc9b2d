"""Create the tables of the benchmark `benchmarks.disclosure`, and state its query."""

from __future__ import annotations

import psycopg

SHIPMENTS = 5  # per customer
# One of ten shipments belongs to a customer with a valid consent.
_MAKE = """
CREATE UNLOGGED TABLE consent AS
SELECT n AS customer_id, 'marketing'::text AS purpose,
    timestamptz '2024-01-01Z' + n * interval '7 s' AS given_at,
    CASE WHEN n % 10 <> 3 THEN timestamptz '2026-01-01Z' END AS withdrawn_at
FROM generate_series(0::bigint, {rows} / {per_customer} - 1) AS n;
CREATE UNLOGGED TABLE shipment AS
SELECT n AS shipment_id, 'SF' || 100000000000000 + n * 7919 AS waybill,
    n / {per_customer} AS customer_id,
    (ARRAY['王', '李', '张', '刘', '陈'])[1 + n % 5]
        || (ARRAY['小明', '芳', '伟', '秀英'])[1 + n % 4] AS receiver,
    '1' || 3000000000 + (hashint8extended(n, 2) & 9007199254740991) % 6999999999 AS phone,
    '北京市朝阳区建国路' || n % 900 + 1 || '号' || n % 60 + 1 || '室' AS address,
    (100 + (hashint8extended(n, 3) & 1048575) % 900000 / 100.0)::numeric(10, 2) AS weight,
    timestamptz '2025-01-01Z' + n * interval '3.123456 s' AS created_at
FROM generate_series(0::bigint, {rows} - 1) AS n;
ALTER TABLE consent ADD PRIMARY KEY (customer_id);
"""
COLUMNS = (
    "shipment_id",
    "waybill",
    "receiver",
    "phone",
    "address",
    "weight",
    "created_at",
    "given_at",
)
# Phone numbers are masked, as in most extracts.
_QUERY = """
SELECT s.shipment_id, s.waybill, s.receiver,
    left(s.phone, 3) || '****' || right(s.phone, 4) AS phone, s.address, s.weight,
    s.created_at, c.given_at
FROM shipment AS s JOIN consent AS c ON c.customer_id = s.customer_id
WHERE c.purpose = 'marketing' AND c.withdrawn_at IS NULL
"""


def make(connection: psycopg.Connection, rows: int) -> None:
    """Fill an empty database.

    Args:
        connection: connection to the database, in autocommit mode.
        rows: number of shipments. The query of the benchmark selects a tenth of them.
    """
    connection.execute(_MAKE.format(rows=rows, per_customer=SHIPMENTS).encode())
    for table in ("consent", "shipment"):
        connection.execute(f"VACUUM (ANALYZE) {table}".encode())
    connection.execute("CHECKPOINT")


def query(most_rows: int | None = None) -> str:
    """Return the query of the benchmark.

    Args:
        most_rows: number of rows to select; None for all.
    """
    return _QUERY if most_rows is None else f"{_QUERY} LIMIT {most_rows}"
