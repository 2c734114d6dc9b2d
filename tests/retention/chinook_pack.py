"""The sample database Chinook, a schema of a third party, with a retention schedule.

``DATABASE`` is the SQL file that creates the database (psql or psycopg). ``chinook_pack`` writes
its policy pack.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.policy.packs import write_pack

DATABASE = Path(__file__).parents[1] / "schema" / "chinook.sql"
DATAMAP = Path(__file__).parents[2] / "examples" / "packs" / "chinook" / "datamap" / "chinook.yaml"
# Invoices of the first three months of 2021 have expired, later invoices have not.
AS_OF = datetime(2024, 4, 1, tzinfo=UTC)

RETENTION = """\
- class: invoice_record
  title: {en: Invoices, zh-CN: 发票}
  collection: invoice
  clock: invoice_date
  period: P3Y
  action: delete
  basis: business
  keys: {subject: t.customer_id, case: t.invoice_id}
- class: invoice_item
  title: {en: Lines of invoices, zh-CN: 发票明细}
  collection: invoice_line
  clock:
    sql: (SELECT i.invoice_date FROM invoice i WHERE i.invoice_id = t.invoice_id)
  period: P3Y
  action: delete
  basis: business
  keys:
    subject: (SELECT i.customer_id FROM invoice i WHERE i.invoice_id = t.invoice_id)
    case: t.invoice_id
- class: buyer                    # who never bought anything has no reason to be here
  title: {en: Customers, zh-CN: 客户}
  collection: customer
  clock:
    sql: >-
      COALESCE((SELECT max(i.invoice_date) FROM invoice i WHERE i.customer_id = t.customer_id),
      '-infinity')
  period: P3Y
  action: delete
  basis: business
  keys: {subject: t.customer_id}
  on_request: true
- class: staff                    # its table refers to itself
  title: {en: Employees, zh-CN: 员工}
  collection: employee
  clock: hire_date
  period: P10Y
  action: keep
  basis: business
"""
DISPOSITION = """\
approval:
  owners: {accounts: [ana]}
  approvers: {accounts: [bo, chen]}
"""


def chinook_pack(folder: Path) -> Path:
    """Write the policy pack of Chinook into a folder.

    It has the data map of the example, the schedule of this module, and otherwise the shipped
    files.
    """
    return write_pack(
        folder,
        datamap__chinook=DATAMAP.read_text(encoding="utf-8"),
        retention=RETENTION,
        disposition=DISPOSITION,
    )
