"""Checks of the erasure ledger before a restore, and its replay after the load."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from include.cli.console import errors, tell
from include.services.errors import ParcelSealError, UsageError
from include.workplace import Workplace

if TYPE_CHECKING:
    from include.backup.archive_entry import Entry
    from include.backup.manifest import RestorePoint
    from include.erasure.replay import Replay
    from include.policy.datamap import MappedDatabase
    from include.services.database import DatabaseAddress

SETTLING_SECONDS = 3600  # for which a restore waits for deletions that began while it loaded


def count_erasures(place: Workplace, database: str, *, incomplete_is_accepted: bool = False) -> int:
    """Count the ledger's entries, before anything is loaded and again after it.

    Args:
        place: connections.
        database: name of the database in the data map.
        incomplete_is_accepted: count a ledger although entries are missing or were changed, or
            batches are open.

    Raises:
        UsageError: the ledger is not configured, one of its keys is missing, or it has open batches
            while there are holds on records, and that is not accepted.
        ControlFailed: entries are gone from it, and that is not accepted.
        ServiceError: it cannot be read.
    """
    from include.erasure.ledger import entries, require_all_there
    from include.erasure.matching import check_keys, require_same_secrets

    if state_is_blank(place):
        raise UsageError(
            "The off-site store is configured, but state_db is not, and the local profile's state "
            "is empty: without the erasure ledger, erased people would come back.",
            "Set AIRFLOW_CONN_STATE_DB. If that database is lost for good: --skip-erasures.",
        )
    try:
        with place.state.connect() as conn:
            found = entries(conn, database)
    except ParcelSealError as error:
        raise type(error)(
            f"The erasure ledger cannot be read, so erased people would come back. {error.message}",
            f"{error.action} If it is lost for good: --skip-erasures.",
        ) from None
    if not incomplete_is_accepted:
        with place.state.connect() as conn:
            require_all_there(conn, database)
        _require_settled(place, database)
    if found:
        check_keys({key_id for by_key in found.values() for key_id in by_key}, place.erasure_keys)
        require_same_secrets(place.state, place.erasure_keys, place.clock.now())
    return sum(sum(by_key.values()) for by_key in found.values())


def _require_settled(place: Workplace, database: str) -> None:
    """Raise UsageError while erasures are in doubt and a legal hold may keep their records.

    A replay takes open batches too. If the live database is lost, nothing can settle them.
    """
    if _is_doubtful(place, database):
        raise UsageError(
            f"It is not known whether all erasures of {database} in the ledger took place, and "
            "there are legal holds on its records: held records might be missing in the copy.",
            "Run enforce_retention once, which finds out, then restore. If the live database is "
            "lost: --incomplete-ledger replays all of them and keeps the copy closed. Compare the "
            "held records with an older restore point before you open it.",
        )


def _is_doubtful(place: Workplace, database: str) -> bool:
    """Return whether erasures are in doubt while there are holds on records of the database."""
    from include.erasure.ledger import unsettled
    from include.holds.records import on_records

    with place.state.connect() as conn:
        return bool(unsettled(conn, database) and on_records(conn, database).fingerprint)


def require_findable_records(
    place: Workplace, mapped: MappedDatabase, chosen: RestorePoint, entries: Sequence[Entry]
) -> None:
    """Raise ControlFailed when the ledger cannot name the restore point's erased records."""
    from include.backup.older_keys import require_findable
    from include.erasure.places import places_of

    require_findable(
        entries,
        mapped.name,
        places_of(mapped),
        {name: one.primary_key for name, one in mapped.collections.items()},
        place.state,
        chosen.id,
    )


def is_complete(place: Workplace, database: str, *, incomplete_is_accepted: bool) -> bool:
    """Return whether the erasure ledger has every entry that it had, and that bundles sealed.

    A database without a retention rule and without an entry needs no ledger. So the state database
    itself can be restored while its ledger is lost.

    Args:
        place: connections.
        database: name of the database in the data map.
        incomplete_is_accepted: return False, with a warning, where erasures are missing, in doubt
            or cannot be compared.

    Raises:
        ControlFailed: entries of settled batches, or erasures that were sealed, are missing.
        UsageError: erasures are in doubt while there are legal holds on records.
        StoreError: the evidence store cannot be read.
    """
    from include.erasure.ledger import entries, require_all_there
    from include.evidence.register_figures import ERASURES

    if not place.pack.retention_of(database):
        with place.state.connect() as conn:
            if not entries(conn, database):
                return True
    try:
        place.require_complete_registers(ERASURES)
        with place.state.connect() as conn:
            require_all_there(conn, database)
        _require_settled(place, database)
    except ParcelSealError as error:
        if not incomplete_is_accepted:
            hint = "To restore meanwhile: --incomplete-ledger."
            if "--incomplete-ledger" in error.action:
                raise
            raise type(error)(error.message, f"{error.action} {hint}") from None
        errors.print(
            f"[bold red]the erasure ledger may be incomplete[/bold red]: {error.message} "
            "People who were erased may be back; keep the copy closed until they are found.",
            soft_wrap=True,
        )
        return False
    return True


def state_is_blank(place: Workplace) -> bool:
    """Say whether a fresh local state stands in for the one that belongs to a configured store."""
    from include.evidence import ledger

    if place.is_local("offsite_store") or not place.is_local("state_db"):
        return False
    with place.state.connect() as conn:
        return ledger.head(conn) is None


def replay_erasures(
    place: Workplace,
    mapped: MappedDatabase,
    target: DatabaseAddress,
    *,
    incomplete_is_accepted: bool = False,
) -> Replay | None:
    """Replay the ledger as it is now, after the load; None where it has no entry.

    Args:
        place: connections.
        mapped: the database in the data map.
        target: the restored copy.
        incomplete_is_accepted: replay the entries that are there, although others are missing.

    Raises:
        ControlFailed: an erased record is left, or could not be looked for.
        UsageError, ServiceError: as `count_erasures` and `include.erasure.replay.replay`.
    """
    from include.erasure.places import places_of
    from include.erasure.replay import replay, require_erased, schedule_of

    until = time.monotonic() + SETTLING_SECONDS
    if not incomplete_is_accepted:
        if _is_doubtful(place, mapped.name):
            tell("waiting for deletions at work to end")
        while _is_doubtful(place, mapped.name) and time.monotonic() < until:
            time.sleep(1)  # a deletion at work settles a batch when it begins the next one
    if not count_erasures(place, mapped.name, incomplete_is_accepted=incomplete_is_accepted):
        return None
    tell("replaying the erasure ledger")
    with target.connect() as connection:
        done = replay(
            connection,
            mapped.name,
            places_of(mapped),
            place.state,
            place.erasure_keys,
            schedule_of(mapped, place.pack.retention_of(mapped.name)),
            place.clock.now(),
            incomplete=incomplete_is_accepted,
        )
    require_erased(done)
    return done
