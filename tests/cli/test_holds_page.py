"""The documentation of legal holds: its hold kinds, review period and SQL query match the code."""

from __future__ import annotations

import re

from sqlalchemy import text

from include.erasure.requests import DUE_AFTER
from include.holds.records import HoldGuard
from include.holds.registry import HoldKind
from include.service_container import ROOT
from include.state.connect import engine

PAGES = ("explanation/holds.md", "how-to/place-a-hold.md")
PAGE = "\n".join((ROOT / "docs" / page).read_text() for page in PAGES)


def test_documentation_of_holds_lists_every_hold_kind_and_the_review_period():
    assert all(f"`{kind}`" in PAGE for kind in HoldKind)
    assert f"due {DUE_AFTER.days} days after" in PAGE


def test_sql_query_on_the_holds_page_shows_the_lock_of_a_running_disposition(
    migrated_database: str,
):
    block = re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert block
    state = engine(migrated_database)
    query = text(block[1].rstrip().rstrip(";"))
    with HoldGuard(state, "courier") as guard, guard.batch(), state.connect() as conn:
        modes = [(row.mode, row.granted) for row in conn.execute(query)]
    assert modes == [("ShareLock", True)]
