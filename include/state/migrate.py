"""Bring the state database to the schema that this version of the code needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from include.services.errors import UsageError
from include.state.connect import StateLock, lock_for_transaction

VERSION_TABLE = "parcelseal_version"  # never Airflow's, should both share a database by mistake
_REVISION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Apply what is missing, all or nothing. Several processes may do so at once.

    Where nothing is missing it asks for the revision and no more: every task of the local profile
    comes here.

    Args:
        engine: the state database.

    Raises:
        UsageError: the database was migrated by a newer version.
    """
    with engine.connect() as conn:
        if current_revision(conn) == newest_revision():
            return
    with engine.begin() as conn:
        lock_for_transaction(conn, StateLock.MIGRATIONS)
        migrate_here(conn)


def migrate_here(conn: Connection) -> None:
    """Apply what is missing where a connection looks for tables; the caller holds a lock.

    Args:
        conn: in a transaction, with which all of it stands or falls.

    Raises:
        UsageError: what is there was migrated by a newer version.
    """
    _refuse_newer(current_revision(conn))
    config = _config()
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def current_revision(conn: Connection) -> str | None:
    """Return the revision of the database, None for one that was never migrated."""
    return MigrationContext.configure(
        conn, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


@cache  # reading the migrations takes as long as a small query
def newest_revision() -> str:
    """Return the revision that this version of the code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def ensure_current(engine: Engine) -> None:
    """Refuse to work on a database of another schema.

    Raises:
        UsageError: migrations are pending, or a newer version made the schema.
    """
    with engine.connect() as conn:
        require_current(conn)


def require_current(conn: Connection) -> None:
    """The same for a connection that is there already, on which nothing was done yet.

    Raises:
        UsageError: as `ensure_current`.
    """
    current = _told_revision(conn)
    _refuse_newer(current)
    if current != newest_revision():
        raise UsageError(
            f"The state database is at revision {current or 'none'}, this version needs "
            f"{newest_revision()}.",
            "Run `./parcelseal migrate`.",
        )


def _told_revision(conn: Connection) -> str | None:
    """The same as `current_revision`, by one query where the table is there: pages ask often."""
    try:
        return conn.execute(_REVISION).scalar_one_or_none()
    except ProgrammingError:
        conn.rollback()
        return current_revision(conn)


def _refuse_newer(current: str | None) -> None:
    if current is not None and current not in _known():
        raise UsageError(
            f"The state database is at revision {current}, which this version does not know.",
            "Use the version of ParcelSeal that migrated it, or a newer one. State from before "
            "version 1.0 cannot be upgraded: begin with an empty state database.",
        )


@cache
def _known() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
