"""What a restore must not be pointed at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.backup.access import CLOSED
from include.backup.restore import refuse_content, refuse_live
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from tests.backup.support import run


def test_the_live_database_is_refused_under_any_address(database: str) -> None:
    """A target is known by its server and oid, not by how its address is written."""
    live = DatabaseAddress.from_conninfo(database)
    renamed = replace(live, parameters={**live.parameters, "application_name": "other"})
    with pytest.raises(UsageError, match="is the live database"):
        refuse_live(renamed, live)


def test_another_database_of_the_same_server_is_allowed(database: str) -> None:
    """Neither another database nor an unreachable live server stands in the way."""
    target = DatabaseAddress.from_conninfo(database)
    refuse_live(target, target.with_database("postgres"))
    refuse_live(target, target.with_database("no_such_database"))


@pytest.mark.parametrize("comment", [CLOSED, f"{CLOSED} of the shop", f"of the shop {CLOSED}"])
def test_a_half_copy_of_an_earlier_restore_is_named_with_how_to_remove_it(
    target: DatabaseAddress, comment: str
) -> None:
    """A killed restore left its tables and the comment that the database is closed."""
    run(target, f"CREATE TABLE buyer (); COMMENT ON DATABASE {target.name} IS '{comment}'")
    with pytest.raises(UsageError, match="earlier restore that did not finish") as refused:
        refuse_content(target)
    assert f'DROP DATABASE "{target.name}"' in refused.value.action
    assert "--into-existing" not in refused.value.action


def test_a_target_with_tables_of_its_own_is_not_to_be_dropped(target: DatabaseAddress) -> None:
    """Nothing says that a restore made them."""
    run(target, f"CREATE TABLE buyer (); COMMENT ON DATABASE {target.name} IS 'of the shop'")
    with pytest.raises(UsageError, match="is not empty: it has 1 tables") as refused:
        refuse_content(target)
    assert "DROP" not in refused.value.action
