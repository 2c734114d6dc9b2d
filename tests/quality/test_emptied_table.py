"""An empty table is not reported as emptied if the erasure ledger explains the deletions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.state.tables import erasure_batch
from tests.quality.support import Company


@pytest.mark.parametrize(
    ("fewer", "action", "code"),
    [
        (0, "delete", "quality.empty"),
        (1, "delete", "quality.emptied"),
        (0, "mask", "quality.emptied"),
    ],
)
def test_table_is_not_reported_as_emptied_if_erasure_ledger_contains_all_deleted_records(
    company: Company, fewer: int, action: str, code: str
) -> None:
    """The number of deletions in the ledger must equal the number of records at the last check."""
    rows = company.collection(company.check())["rows"]
    with company.state.begin() as conn:
        for at, records in ((-1, rows), (1, rows - fewer)):  # an older deletion explains nothing
            conn.execute(
                erasure_batch.insert().values(
                    database="shop", collection="person", action=action, record_class="person",
                    rule="0", dag_id="enforce_retention", run_id="r", records=records,
                    erased_at=company.at + timedelta(hours=at), settled_at=company.at,
                    entries=0, entries_sha256=b"0",
                )
            )  # fmt: skip
    company.do("DELETE FROM consent", "DELETE FROM person")
    codes = {finding.code for finding in company.check().record.findings}
    assert {code for code in codes if code.startswith("quality.empt")} == {code}
