"""The SQL of the documentation recomputes the figures of registers that a bundle sealed."""

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
    """Run the documented commands in a bundle's folder; return register -> result."""
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
    return (DOCS / "evidence.md").read_text(encoding="utf-8")


def test_documented_sql_recomputes_sealed_figures_after_later_changes(evidence: Evidence) -> None:
    """Rows that were open are closed since, and others were added; then one row is deleted."""
    company = Company(evidence, evidence.engine)
    for write in (company.erase, company.hold, company.request, company.finding, company.hold):
        write()
    company.release()
    company.erase(settled=False)
    company.seal()
    company.settle()
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
def test_documented_sql_names_batches_whose_entries_are_not_the_settled_ones(
    evidence: Evidence, harm: str
) -> None:
    """The figure of the batches stays as it was sealed, where only entries change."""
    company = Company(evidence, evidence.engine)
    company.erase()
    company.erase()
    company.seal()
    bundle = next(iter(ledger.rows(evidence.conn))).bundle
    company.harm(harm)
    found = recomputed(company, bundle)
    assert found["entries"] == "1 batches as settled, 1 DIFFER"
    assert (found["erasure"] == "as sealed") == ("erasure_batch" not in harm)
