"""The sample courier database: realistic, deterministic, with planted defects and an answer sheet.

docs/sample-database.md describes it.
"""

from include.local.sample.answers import AnswerSheet, Canary, RowSet
from include.local.sample.load import digest, load
from include.local.sample.rates import Rates

__all__ = ["AnswerSheet", "Canary", "Rates", "RowSet", "digest", "load"]
