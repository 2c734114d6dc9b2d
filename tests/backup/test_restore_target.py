"""What a restore must not be pointed at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.backup.restore import refuse_live
from include.services.database import DatabaseAddress
from include.services.errors import UsageError


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
