"""docs/holds.md: its keys, kinds and query are those of the code."""

from __future__ import annotations

import re

from sqlalchemy import text

from include.erasure.requests import DUE_AFTER
from include.holds.records import HoldGuard
from include.holds.registry import HoldKind
from include.state.connect import engine
from include.workplace import ROOT

PAGE = (ROOT / "docs" / "holds.md").read_text()


def test_every_kind_and_the_deadline_are_named():
    """Each kind stands in the table; the days are the constant's."""
    assert all(f"`{kind}`" in PAGE for kind in HoldKind)
    assert f"due {DUE_AFTER.days} days after" in PAGE


def test_the_query_finds_the_lock(migrated_database: str):
    """As it stands on the page."""
    found = re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert found
    state = engine(migrated_database)
    query = text(found[1].rstrip().rstrip(";"))
    with HoldGuard(state, "courier") as guard, guard.batch(), state.connect() as conn:
        modes = [(row.mode, row.granted) for row in conn.execute(query)]
    assert modes == [("ShareLock", True)]
