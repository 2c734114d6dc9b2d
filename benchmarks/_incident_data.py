"""The courier database of the incident benchmark: the sample's tables with generated rows.

The sample's own generator would take twice as long, because it plants defects. The rows of this
module have the same types, sizes and gaps, such as customers without a phone number or birth date.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg

from include.sample_company import load
from include.sample_company.load import statements
from include.service_container import ROOT

AS_OF = datetime(2026, 11, 24, 12, tzinfo=UTC)
EMPLOYEES = 5_000
KEYS = ROOT / "include/sample_company/keys.sql"
DEPARTMENT = "北京分公司"  # each of six branches has a sixth of the customers
_APPROVALS = 10_000
_ALL_LARGE = ("customer", "address", "consent", "waybill", "complaint", "access_log")
# The generated rows are valid, so the server need not check foreign keys.
_SETTINGS = """
SET session_replication_role = replica; SET synchronous_commit = off;
SET maintenance_work_mem = '512MB'; SET TimeZone = 'Asia/Shanghai'
"""
_INDEXES = """
SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relname = ANY (%s) AND NOT i.indisprimary
"""
_STAFF = """
INSERT INTO employee (employee_id, number, name, department_id, manager_id, role, email, phone,
    joined_on, has_data_access)
SELECT n, 'E' || lpad(n::text, 5, '0'), '员工' || n, 9 + n % 6, 9 + n % 6, 'clerk',
    'e' || n || '@courier.example', '139' || lpad(n::text, 8, '0'), '2020-01-01', true
FROM generate_series((SELECT max(employee_id) + 1 FROM employee), {employees}) AS n;
INSERT INTO approval (requester_id, approver_id, purpose, fields, approved_at, valid_until)
SELECT 1 + n % {employees}, 1 + n % 14, 'complaint', '{{name,phone}}', {as_of} - interval '3 years',
    {as_of} FROM generate_series(1, {approvals}) AS n
"""
# Of 1,000 customers 6 are under 14, 2 have no birth date, ID number or phone, and 3 a religion.
# Every second customer of the older half has no e-mail address.
_CUSTOMERS = """
INSERT INTO customer
SELECT n, substr('赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨', 1 + (n % 16)::int, 1)
        || substr('伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰', 1 + (n / 16 % 20)::int, 2),
    CASE WHEN n % 500 <> 7 THEN '1' || (3000000000 + n) END,
    CASE WHEN n % 500 <> 9
        THEN '110101' || to_char(born, 'YYYYMMDD') || lpad((n % 10000)::text, 4, '0') END,
    CASE WHEN n % 2 <> 0 OR n > {customers} / 2 THEN 'c' || n || '@mail.example' END,
    CASE WHEN n % 500 <> 11 THEN born END,
    CASE WHEN n % 1000 IN (13, 513, 713) THEN '佛教' END,
    (CASE WHEN closed THEN 'closed' WHEN n % 20 = 3 THEN 'dormant' ELSE 'active' END)
        ::customer_status,
    (CASE WHEN n % 1000 < 6 THEN 'sensitive' ELSE 'personal' END)::record_class,
    9 + (n / 7 % 6)::int, n, n % 5 = 0,
    CASE WHEN n % 4 = 1 THEN '{{"leave_at": "前台", "call_first": true}}'::jsonb END,
    made, {as_of} - interval '1 second' * (n % 20000000),
    {as_of} - interval '1 second' * (n % 20000000),
    CASE WHEN closed THEN {as_of} - interval '1 second' * (n % 20000000) END,
    1 + (n * 7919 % {employees})::int, 1 + (n * 104729 % {employees})::int,
    made + interval '30 minutes'
FROM (
    SELECT n, n % 50 = 17 AS closed,
        {as_of} - interval '6 years' + n * (interval '6 years' / {customers}) AS made,
        CASE WHEN n % 1000 < 6 THEN date '2014-01-01' + (n * 31 % 3000)::int
            ELSE date '1940-01-01' + (n * 991 % 25000)::int END AS born
    FROM generate_series(1::bigint, {customers}) AS n
) AS one
"""
# Every fifth customer has a second address.
_ADDRESSES = """
INSERT INTO address (address_id, customer_id, label, division_code, province, city, district,
    street, is_default, created_at)
SELECT CASE WHEN second THEN {customers} + n / 5 ELSE n END, n,
    CASE WHEN n % 3 = 0 THEN '家' END, '110105', '北京市', '北京市', '朝阳区',
    '建国路' || n % 900 + 1 || '号' || n % 60 + 1 || '室', NOT second,
    {as_of} - interval '6 years' + n * (interval '6 years' / {customers})
FROM generate_series(1::bigint, {customers}) AS n,
    LATERAL (SELECT false AS second UNION ALL SELECT true WHERE n % 5 = 0) AS places
"""
_CONSENTS = """
INSERT INTO consent (customer_id, purpose, notice_version_id, given_at, withdrawn_at, channel,
    by_guardian)
SELECT n, purpose, 1 + (n % 4)::int, given,
    CASE WHEN n % 300 = 5 THEN given + interval '90 days' END,
    CASE WHEN n % 2 = 0 THEN 'app' ELSE 'counter' END, n % 1000 < 6
FROM generate_series(1::bigint, {customers}) AS n,
    LATERAL (SELECT 'delivery' AS purpose UNION ALL SELECT 'marketing' WHERE n % 5 = 0
        UNION ALL SELECT 'partner_sharing' WHERE n % 10 = 3) AS purposes,
    LATERAL (SELECT {as_of} - interval '6 years' + n * (interval '6 years' / {customers})
        + interval '5 minutes' AS given) AS moments
"""
# One waybill per customer, evenly over three years. Contacts are masked 90 days after delivery.
_WAYBILLS = """
INSERT INTO waybill
SELECT n, made, 'SF' || 1000000000000 + n, 'own', 'delivered', sender, sender,
    CASE WHEN old THEN '王**' ELSE '王小' || n % 10 END,
    CASE WHEN old THEN '139****' || lpad((n % 10000)::text, 4, '0') ELSE '1' || 3900000000 + n END,
    CASE WHEN old THEN '北京市朝阳区***' ELSE '北京市朝阳区建国路' || n % 900 + 1 || '号' END,
    receiver, receiver,
    CASE WHEN old THEN '李**' ELSE '李小' || n % 10 END,
    CASE WHEN old THEN '138****' || lpad((n % 10000)::text, 4, '0') ELSE '1' || 3800000000 + n END,
    CASE WHEN old THEN '上海市静安区***' ELSE '上海市静安区南京路' || n % 900 + 1 || '号' END,
    500 + (n % 9000)::int, 12 + n % 20, made + interval '2 days',
    CASE WHEN old THEN made + interval '92 days' END
FROM generate_series(1::bigint, {customers}) AS n,
    LATERAL (SELECT
        {as_of} - interval '1095 days' + n * (interval '1094 days' / {customers}) AS made,
        1 + n * 7919 % {customers} AS sender, 1 + n * 104729 % {customers} AS receiver) AS one,
    LATERAL (SELECT made < {as_of} - interval '92 days' AS old) AS age
"""
_COMPLAINTS = """
INSERT INTO complaint (customer_id, kind, description, opened_at, closed_at, handled_by)
SELECT 1 + n * 33 % {customers}, 'late', '包裹迟到，客户要求说明原因', opened,
    opened + interval '6 days', 1 + (n % {employees})::int
FROM generate_series(1::bigint, {customers} * 3 / 100) AS n,
    LATERAL (SELECT {as_of} - interval '1100 days' + n * (interval '1090 days'
        / ({customers} * 3 / 100)) AS opened) AS one
"""
# Rows are in the order of time, as a log is written; employees and customers are random.
_LOG = """
INSERT INTO access_log (employee_id, customer_id, purpose, accessed_at, approval_id)
SELECT 1 + ((hashint8extended(n, 1) & {mask}) % {employees})::int,
    1 + (hashint8extended(n, 2) & {mask}) % {customers},
    (ARRAY['delivery', 'complaint', 'claim', '投诉处理'])[1 + n % 4],
    {as_of} - interval '1095 days' + n * (interval '1094 days' / {log}),
    CASE WHEN n % 3 = 0 THEN 1 + n % {approvals} END
FROM generate_series(1::bigint, {log}) AS n
"""


def make(conninfo: str, customers: int, log: int) -> None:
    """Fill an empty database: the tables about customers and the access log, in parallel.

    Args:
        conninfo: connection string of the database as a superuser.
        customers: number of customers. Each has 1.2 addresses, 1.3 consents, one waybill and 0.03
            complaints on average.
        log: number of rows of the access log.
    """
    words = {
        "customers": customers,
        "log": log,
        "employees": EMPLOYEES,
        "approvals": _APPROVALS,
        "mask": 2**53 - 1,
        "as_of": f"'{AS_OF.isoformat()}'::timestamptz",
    }
    with psycopg.connect(conninfo) as connection:
        load(connection, customers=0, as_of=AS_OF)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_SETTINGS)
        for name, *_rest in connection.execute(_INDEXES, [list(_ALL_LARGE)]).fetchall():
            connection.execute(f"DROP INDEX IF EXISTS {name}".encode())
        connection.execute(_STAFF.format(**words).encode())

    def fill(tables: dict[str, str]) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(_SETTINGS)
            for name, text in tables.items():
                connection.execute(text.format(**words).encode())
                for statement in statements(KEYS):
                    if statement.startswith(f"CREATE INDEX ON {name} ".encode()):
                        connection.execute(statement)
                connection.execute(f"VACUUM (ANALYZE) {name}".encode())

    about_customers = {
        "customer": _CUSTOMERS,
        "address": _ADDRESSES,
        "consent": _CONSENTS,
        "waybill": _WAYBILLS,
        "complaint": _COMPLAINTS,
    }
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(fill, {"access_log": _LOG}), pool.submit(fill, about_customers)]:
            future.result()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("ANALYZE employee, department, approval")
        connection.execute("CHECKPOINT")
