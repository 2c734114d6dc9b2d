"""Migrate the state database to the schema that this version needs."""

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

VERSION_TABLE = "parcelseal_version"  # not Airflow's table, in case both share a database
_REVISION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine) -> None:
    """Apply the pending migrations of the state database in one transaction.

    Several processes may call this function at the same time. If no migration is pending, the
    function only reads the revision. It is therefore fast enough to be called by every task of the
    local profile.

    Args:
        engine: the state database.

    Raises:
        UsageError: a newer version of ParcelSeal migrated the database.
    """
    with engine.connect() as conn:
        if current_revision(conn) == newest_revision():
            return
    with engine.begin() as conn:
        lock_for_transaction(conn, StateLock.MIGRATIONS)
        migrate_here(conn)


def migrate_here(conn: Connection) -> None:
    """Apply the pending migrations in the schema of a connection.

    The caller must ensure that no other process migrates the schema at the same time, for example
    with the lock `StateLock.MIGRATIONS`.

    Args:
        conn: connection on which a transaction is open. The migrations become part of the
            transaction.

    Raises:
        UsageError: a newer version of ParcelSeal migrated the schema.
    """
    _refuse_newer(current_revision(conn))
    config = _config()
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def current_revision(conn: Connection) -> str | None:
    """Return the schema revision of the state database, or None if it was never migrated."""
    return MigrationContext.configure(
        conn, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


@cache  # reading the migration files takes as long as a small query
def newest_revision() -> str:
    """Return the schema revision that this version of ParcelSeal needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def ensure_current(engine: Engine) -> None:
    """Refuse a database whose schema does not fit this version of ParcelSeal.

    Args:
        engine: the database.

    Raises:
        UsageError: migrations are pending, or a newer version of ParcelSeal migrated the database.
    """
    with engine.connect() as conn:
        require_current(conn)


def require_current(conn: Connection) -> None:
    """Refuse a state database whose schema does not fit this version of ParcelSeal.

    Args:
        conn: a new connection to the state database.

    Raises:
        UsageError: migrations are pending, or a newer version migrated the database.
    """
    current = _read_revision(conn)
    _refuse_newer(current)
    if current != newest_revision():
        raise UsageError(
            f"The state database is at revision {current or 'none'}, this version needs "
            f"{newest_revision()}.",
            "Run `./parcelseal migrate`.",
        )


def _read_revision(conn: Connection) -> str | None:
    """Return the current schema revision, or None if the state database was never migrated.

    Unlike `current_revision`, this function reads the revision with a single query, because it is
    called often.
    """
    try:
        return conn.execute(_REVISION).scalar_one_or_none()
    except ProgrammingError:
        conn.rollback()
        return current_revision(conn)


def _refuse_newer(current: str | None) -> None:
    if current is not None and current not in _known_revisions():
        raise UsageError(
            f"Another version of ParcelSeal made the state database (revision {current}). This "
            "version cannot use it, and changed nothing.",
            "If a newer version made it, use that version. If a version before 1.0 made it, start "
            "with an empty state database: docs/how-to/upgrade.md.",
        )


@cache
def _known_revisions() -> frozenset[str]:
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
