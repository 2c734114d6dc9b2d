"""Check the erasure ledger before a restore; after the restore, erase the records that it lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.cli.console import errors, tell
from include.service_container import Services
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.backup.archive_entry import Entry
    from include.backup.manifest import RestorePoint
    from include.erasure.replay import ReplayResult
    from include.policy.datamap import MappedDatabase
    from include.services.database import DatabaseAddress

SETTLING_SECONDS = 3600  # longest wait for deletions that began during the load of a restore


def count_erasures(
    services: Services, database: str, *, incomplete_is_accepted: bool = False
) -> int:
    """Check the erasure ledger of a database, and return the number of its entries.

    A restore calls this function before it loads the data, and again after the load.

    Args:
        services: connections and policy pack.
        database: name of the database in the data map.
        incomplete_is_accepted: whether to accept that entries are missing or changed, and that it
            is unknown whether some erasures took place. Otherwise an error is raised in these
            cases.

    Raises:
        UsageError: the state database is not configured; an HMAC key is missing or has another
            secret; or it is unknown whether some erasures took place while records are on legal
            hold.
        ControlFailed: entries of the ledger are missing or changed.
        ServiceError: the state database cannot be read.
    """
    from include.erasure.ledger import count_entries, require_complete_ledger
    from include.erasure.matching import check_keys, require_same_secrets

    if state_is_blank(services):
        raise UsageError(
            "The off-site store is configured, but the connection state_db is not, and the local "
            "state is empty. Without the erasure ledger, the restore would bring erased people "
            "back.",
            "Set AIRFLOW_CONN_STATE_DB. If that database is permanently lost, use --skip-erasures.",
        )
    try:
        with services.state.connect() as conn:
            entries = count_entries(conn, database)
    except ParcelSealError as error:
        raise type(error)(
            "The erasure ledger cannot be read, so the restore would bring erased people back. "
            f"{error.message}",
            f"{error.action} If the ledger is permanently lost, use --skip-erasures.",
        ) from None
    if not incomplete_is_accepted:
        with services.state.connect() as conn:
            require_complete_ledger(conn, database)
        _require_settled(services, database)
    if entries:
        check_keys(
            {key_id for by_key in entries.values() for key_id in by_key}, services.erasure_keys
        )
        require_same_secrets(services.state, services.erasure_keys, services.clock.now())
    return sum(sum(by_key.values()) for by_key in entries.values())


def _require_settled(services: Services, database: str) -> None:
    """Raise UsageError if a replay of erasures could erase a record that is on legal hold.

    This is possible if the database has records on legal hold and the erasure ledger has open
    batches. A batch is open if it is unknown whether its transaction erased the listed records or
    was rolled back. A replay erases these records in both cases.
    """
    if _is_doubtful(services, database):
        raise UsageError(
            f"It is not certain that all erasures of {database} in the ledger took place, and its "
            "records are under legal hold: the copy could lack records under hold.",
            "Run enforce_retention once to settle the ledger, then restore. If the live database "
            "is lost, --incomplete-ledger replays all entries and keeps the copy closed. Compare "
            "the records under hold with an older restore point before you open the copy.",
        )


def _is_doubtful(services: Services, database: str) -> bool:
    """Return True if the database has both open erasure batches and records on legal hold.

    A batch is open if it is unknown whether its transaction erased the listed records.
    """
    from include.erasure.ledger import read_open_batches
    from include.holds.records import load_record_holds

    with services.state.connect() as conn:
        return bool(
            read_open_batches(conn, database) and load_record_holds(conn, database).fingerprint
        )


def require_findable_records(
    services: Services, mapped: MappedDatabase, chosen: RestorePoint, entries: Sequence[Entry]
) -> None:
    """Raise ControlFailed if a replay could not find the erased records in the restored copy.

    This is checked before the restore, with the tables and keys that the backup contains.

    Args:
        services: connections and policy pack.
        mapped: database of the data map.
        chosen: the restore point to restore.
        entries: objects of the backup, from its table of contents.
    """
    from include.backup.erasure_keys import require_findable
    from include.erasure.tables import table_names_of

    require_findable(
        entries,
        mapped.name,
        table_names_of(mapped),
        {name: collection.primary_key for name, collection in mapped.collections.items()},
        services.state,
        chosen.id,
    )


def is_complete(services: Services, database: str, *, incomplete_is_accepted: bool) -> bool:
    """Return whether the erasure ledger still has all of its entries.

    The check compares the entries with the ledger's batches, and with the figures that evidence
    bundles sealed. It returns True for a database that has neither a retention rule nor an entry.
    This applies to the state database itself, which can therefore be restored even if the ledger is
    lost.

    Args:
        services: connections and policy pack.
        database: name of the database in the data map.
        incomplete_is_accepted: whether to print a warning and return False, instead of raising an
            error, if entries are missing, if they cannot be compared, or if it is unknown whether
            some erasures took place.

    Raises:
        ControlFailed: entries of erasures that were committed are missing or changed, or the ledger
            has fewer erasures than evidence bundles sealed.
        UsageError: it is unknown whether some erasures took place, while records are on legal hold.
        StoreError: the evidence store cannot be read.
    """
    from include.erasure.ledger import count_entries, require_complete_ledger
    from include.evidence.register_figures import ERASURES

    if not services.pack.retention_of(database):
        with services.state.connect() as conn:
            if not count_entries(conn, database):
                return True
    try:
        services.require_complete_registers(ERASURES)
        with services.state.connect() as conn:
            require_complete_ledger(conn, database)
        _require_settled(services, database)
    except ParcelSealError as error:
        if not incomplete_is_accepted:
            hint = "To restore before that, use --incomplete-ledger."
            if "--incomplete-ledger" in error.action:
                raise
            raise type(error)(error.message, f"{error.action} {hint}") from None
        errors.print(
            f"[bold red]the erasure ledger may be incomplete[/bold red]: {error.message} "
            "The copy may contain erased people; keep it closed until their records are erased.",
            soft_wrap=True,
        )
        return False
    return True


def state_is_blank(services: Services) -> bool:
    """Return True if the state database is local and empty, but the off-site store is configured.

    The backups in the off-site store belong to a company that has a state database. So this result
    shows that the connection to that state database is missing in this environment.
    """
    from include.evidence import ledger

    if services.is_local("offsite_store") or not services.is_local("state_db"):
        return False
    with services.state.connect() as conn:
        return ledger.head(conn) is None


def replay_erasures(
    services: Services,
    mapped: MappedDatabase,
    target: DatabaseAddress,
    *,
    incomplete_is_accepted: bool = False,
) -> ReplayResult | None:
    """Erase in a restored copy all records that the erasure ledger lists.

    Args:
        services: connections and policy pack.
        mapped: the database in the data map.
        target: address of the restored copy.
        incomplete_is_accepted: whether to replay the existing entries although entries are missing.

    Returns:
        Counts of the replay; None if the ledger has no entries for the database.

    Raises:
        ControlFailed: the restored copy still contains an erased record, or the copy could not be
            searched for some of the erased records.
        UsageError: see `count_erasures` and `include.erasure.replay.replay`.
        ServiceError: see `count_erasures` and `include.erasure.replay.replay`.
    """
    from include.erasure.replay import replay, replay_rules_of, require_erased
    from include.erasure.tables import table_names_of

    until = time.monotonic() + SETTLING_SECONDS
    if not incomplete_is_accepted:
        if _is_doubtful(services, mapped.name):
            tell("waiting until running deletions end")
        while _is_doubtful(services, mapped.name) and time.monotonic() < until:
            time.sleep(1)  # a running deletion settles a batch when it begins the next
    if not count_erasures(services, mapped.name, incomplete_is_accepted=incomplete_is_accepted):
        return None
    tell("replaying the erasure ledger")
    with target.connect() as connection:
        done = replay(
            connection,
            mapped.name,
            table_names_of(mapped),
            services.state,
            services.erasure_keys,
            replay_rules_of(mapped, services.pack.retention_of(mapped.name)),
            services.clock.now(),
            incomplete=incomplete_is_accepted,
        )
    require_erased(done)
    return done
