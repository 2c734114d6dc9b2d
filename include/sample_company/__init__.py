"""The sample courier database: realistic, deterministic, with planted defects and an answer sheet.

docs/sample-database.md describes it.
"""

from __future__ import annotations

from include.sample_company.answers import AnswerSheet, Canary, RowSet
from include.sample_company.load import digest, load
from include.sample_company.world import Rates

__all__ = ["AnswerSheet", "Canary", "Rates", "RowSet", "digest", "load"]
