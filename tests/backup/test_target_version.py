"""A restore begins only on a server whose version pg_restore can load into."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select

from include.backup import target_version
from include.backup.drill import DrillPlace
from include.backup.restore import restore
from include.backup.target_version import refuse_old_version
from include.encryption.crypto import Refused
from include.encryption.recipients import OpeningKey
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.state.tables import scratch_database
from tests.backup.drill_rig import KEYS, Rig
from tests.backup.support import Taken, rows
from tests.support.holders import Holder

TABLES = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"


@pytest.mark.parametrize(
    ("server", "pg_restore", "major"),
    [
        (150004, "18.4", "15"),
        (160009, "17.0", "16"),
        (169999, "18beta1", "16"),
        (90624, "18.4", "9"),
    ],
)
def test_refuse_old_version_names_the_version_and_the_way_out(
    server: int, pg_restore: str, major: str
) -> None:
    """Since version 17, pg_restore sets transaction_timeout, which older servers lack."""
    with pytest.raises(UsageError) as refused:
        refuse_old_version(server, pg_restore, "Use another server.")
    assert refused.value.message == (
        f"The target runs PostgreSQL {major}; restores need 17 or newer."
    )
    assert refused.value.action == "Use another server."


@pytest.mark.parametrize(
    ("server", "pg_restore"), [(170000, "18.4"), (180004, "17.1"), (150004, "16.9"), (150004, "15")]
)
def test_refuse_old_version_accepts_a_server_that_pg_restore_can_load_into(
    server: int, pg_restore: str
) -> None:
    """An older pg_restore, of PARCELSEAL_POSTGRES_CLIENT, does not set that parameter."""
    refuse_old_version(server, pg_restore, "")


@pytest.fixture
def too_old(server: DatabaseAddress, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let restores need a newer server than that of the tests; return the server's version."""
    monkeypatch.setattr(target_version, "OLDEST_SERVER", 99)
    ((version,),) = rows(server, "SHOW server_version")
    return str(version).partition(".")[0]


def test_restore_refuses_an_old_target_before_anything_is_read_or_loaded(
    taken: Taken, target: DatabaseAddress, stranger: OpeningKey, too_old: str
) -> None:
    """The wrong key would be refused next; the target stays empty."""
    with pytest.raises(UsageError, match=f"runs PostgreSQL {too_old}; restores need 99") as refused:
        restore(taken.source(stranger), target)
    assert "server of PostgreSQL 99 or newer" in refused.value.action
    assert rows(target, TABLES) == [(0,)]


def test_restore_into_a_server_of_a_supported_version_goes_on(
    taken: Taken, target: DatabaseAddress, stranger: OpeningKey
) -> None:
    """The wrong key is refused then."""
    with pytest.raises(Refused):
        restore(taken.source(stranger), target)


def test_drill_refuses_an_old_server_and_creates_no_database(
    taken: Taken,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
    too_old: str,
) -> None:
    """The action names the connection of drills."""
    rig = Rig(
        taken.source(operations.opening), DrillPlace(server, set(), state, KEYS), server, server
    )
    with pytest.raises(UsageError, match=f"runs PostgreSQL {too_old}; restores need 99") as refused:
        rig.drill()
    assert "connection drill_db" in refused.value.action
    assert rig.scratch_left() == []
    with state.connect() as conn:
        assert list(conn.scalars(select(scratch_database.c.name))) == []
