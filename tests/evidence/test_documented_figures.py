"""The SQL in the documentation recomputes the register figures that a bundle contains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from include.evidence import ledger
from include.evidence.register_figures import REGISTERS
from include.services.programs import program
from tests.evidence.register_fixtures import Company
from tests.evidence.support import Evidence

DOCS = Path(__file__).parents[2] / "docs"


def recomputed(company: Company, bundle: str) -> dict[str, str]:
    """Run the documented commands in a bundle's folder; return register name -> result."""
    (script,) = re.findall(r"```sh\n([^`]*register-figures\.sql.*?)```", _page(), re.DOTALL)
    programs = (Path(program("psql")).parent, Path(sys.executable).parent, "/usr/bin", "/bin")
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=company.evidence.root / bundle,
        env={
            "STATE": company.evidence.database,
            "DOCS": str(DOCS),
            "PATH": ":".join(map(str, programs)),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines()]
    return {row[0]: row[-1] for row in rows if len(row) == 4 and row[1].isdigit()}


def _page() -> str:
    return (DOCS / "how-to/recover-lost-records.md").read_text(encoding="utf-8")


def test_documented_sql_query_returns_the_sealed_figures_after_rows_were_added_or_closed(
    evidence: Evidence,
) -> None:
    """Rows are closed and added after the seal, which changes no figure.

    Then a row is deleted, which changes a figure.
    """
    company = Company(evidence, evidence.engine)
    for write in (company.erase, company.hold, company.request, company.finding, company.hold):
        write()
    company.release()
    company.erase(settled=False)
    company.seal()
    company.settle_batches()
    for end in (company.release, company.close_request, company.close_finding, company.hold):
        end()
    bundle = next(iter(ledger.rows(evidence.conn))).bundle
    as_sealed = {it.name: "as sealed" for it in REGISTERS}
    entries = {"entries": "2 batches as settled, 0 differ"}
    assert recomputed(company, bundle) == as_sealed | entries
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    assert recomputed(company, bundle)["legal_hold"] == "DIFFERS"
    figures = json.loads((company.evidence.root / bundle / "result.json").read_text())
    assert set(figures["registers"]["figures"]) == {it.name for it in REGISTERS}


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM erasure WHERE batch_id = 1",
        "DELETE FROM erasure WHERE ctid = '(0,1)'",
        "UPDATE erasure SET action = 'mask' WHERE ctid = '(0,1)'",
        "INSERT INTO erasure VALUES (sha256('x'), '1', 'delete', 1)",
        "UPDATE erasure_batch SET entries = 4 WHERE id = 1",
    ],
)
def test_documented_sql_detects_erasure_batch_with_changed_entries(
    evidence: Evidence, harm: str
) -> None:
    """The digest of the batches does not change if only entries of a batch were changed."""
    company = Company(evidence, evidence.engine)
    company.erase()
    company.erase()
    company.seal()
    bundle = next(iter(ledger.rows(evidence.conn))).bundle
    company.harm(harm)
    figures = recomputed(company, bundle)
    assert figures["entries"] == "1 batches as settled, 1 DIFFER"
    assert (figures["erasure"] == "as sealed") == ("erasure_batch" not in harm)
