"""Generate the sample database of a courier company: realistic, reproducible records.

Some records have deliberate defects, which the controls of the sample company should find. The
answer sheet (`include.sample_company.answers`) lists them. docs/reference/sample-database.md
describes the database.
"""

from __future__ import annotations

from include.sample_company.answers import AnswerSheet, Canary, RowSet
from include.sample_company.load import digest, load
from include.sample_company.world import Rates

__all__ = ["AnswerSheet", "Canary", "Rates", "RowSet", "digest", "load"]
