"""The steps of `backup_offsite`: check, dump and publish, prune."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg import sql
from sqlalchemy import Engine

from include.backup import begun, prune
from include.backup import manifest as manifests
from include.backup.begun import Ending, Work
from include.backup.dump import Progress, take_backup
from include.backup.listing import listed_points, work_reader
from include.backup.manifest import Manifest, Rejected, RestorePoint
from include.backup.offsite_findings import (
    report_copies,
    report_lost,
    report_points,
    report_unfinished,
)
from include.backup.point_folder import NAMES, folders
from include.backup.preflight import (
    CLAUSE,
    check_recipients,
    check_routes,
    check_sites,
    check_store,
)
from include.backup.prune import Verdict
from include.backup.snapshot import Clock as ClockColumn
from include.backup.unfinished import Cleared, clear_unfinished
from include.encryption.recipients import Recipient, UnreadableRecipient
from include.evidence.model import Outcome, StepRecord
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.holds.registry import restore_points_held
from include.holds.restore_points import RestorePointGuard
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.services.transport import Destination, Route
from include.workplace import Workplace

LEFT_TO_PRUNING = "leftovers_left_to_pruning"  # in the record of a backup step
CLOCK_TOLERANCE = timedelta(minutes=5)  # more than clocks that are kept right differ


@dataclass(frozen=True)
class Offsite:
    """The off-site store, and the keys that backups in it are made and read with.

    Attributes:
        store: the off-site store.
        recipients: to whose keys backups are encrypted.
        unreadable: recipients whose certificates cannot be used.
        signer: signs manifests; None where no backups are made.
        trusted: public keys (PEM) whose signatures of manifests count.
        may_delete: whether this login may delete in the store. If not, leftovers of killed runs
            wait for the step that prunes.
    """

    store: ObjectStore
    recipients: Sequence[Recipient]
    unreadable: Sequence[UnreadableRecipient]
    signer: Signer | None
    trusted: Sequence[bytes]
    may_delete: bool = True

    def require_signer(self) -> Signer:
        """Return the key that signs manifests; raises UsageError."""
        if self.signer is None:
            raise UsageError(
                "The key that signs manifests is not configured.",
                "Set `signing_key` in the extra of the connection offsite_store: PEM or a file.",
            )
        return self.signer


def offsite_of(services: Workplace) -> Offsite:
    """Return the off-site store with its recipients and signer.

    Raises:
        UsageError: a connection is missing or cannot be used.
    """
    recipients, unreadable = services.recipients()
    store = services.store("offsite_store")
    return Offsite(
        store,
        recipients,
        unreadable,
        services.manifest_signer,
        services.trusted_for_manifests,
        may_delete=services.connection("offsite_store").text("may_delete") != "false",
    )


def check(
    offsite: Offsite,
    databases: Sequence[MappedDatabase],
    rules: BackupRules,
    clock: Clock,
    stand_ins: Collection[str] = (),
    routes: Sequence[Route] = (),
) -> StepRecord:
    """Look at everything that must be right before a dump begins.

    ``may_dump`` in the record's data says whether it may begin. It may over a way to a store that
    is not verified, although the record fails then.

    Args:
        offsite: store, recipients and signer.
        databases: all that the data map names.
        rules: of the pack's backup.yaml.
        clock: for the validity of keys.
        stand_ins: databases for which the local profile's sample stands in.
        routes: connections that are neither verified over TLS nor on this machine.

    Raises:
        StoreError: the store cannot be reached.
    """
    offsite.require_signer()
    seen = StepFindings("preflight", CLAUSE)
    to_stores = [route for route in routes if route.destination is Destination.STORE]
    check_routes(seen, [route for route in routes if route not in to_stores])
    problems = check_store(seen, offsite.store)
    at_primary_site = check_sites(seen, databases, offsite.store, problems)
    check_recipients(seen, offsite.recipients, offsite.unreadable, rules.recipients, clock.now())
    for name in stand_ins:
        seen.find(
            "backup.sample",
            Outcome.ATTENTION,
            _("No connection is configured: this is the sample database."),
            _("Configure the connection that the data map names for this database."),
            subject=name,
        )
    may_dump = all(finding.severity is not Outcome.FAIL for finding in seen.findings)
    check_routes(seen, to_stores)  # these fail the run, and its backup is taken
    return seen.record(
        {
            "may_dump": may_dump,
            "store": offsite.store.description,
            "store_kind": offsite.store.kind,
            "recipients": [one.name for one in offsite.recipients],
            "at_primary_site": at_primary_site,
            "sites": {
                "store": offsite.store.site,
                **{f"database {one.name}": one.site for one in databases},
            },
        }
    )


def back_up(
    database: MappedDatabase,
    source: DatabaseAddress,
    offsite: Offsite,
    rules: BackupRules,
    state: Engine,
    *,
    dag_id: str,
    run_id: str,
    clock: Clock,
    again: bool = False,
    progress: Progress | None = None,
    require_holds: Callable[[], None] | None = None,
    confirm: Callable[[], None] | None = None,
) -> tuple[StepRecord, Manifest]:
    """Take, verify and publish one restore point. Call under the database's lock.

    What killed runs of this installation left of this database is cleared first. A run that was
    killed after it had published its restore point takes no second one.

    Args:
        database: of the data map.
        source: where it is.
        offsite: where the restore point goes.
        rules: of the pack's backup.yaml.
        state: the state database: the ledger of begun folders, and the holds.
        dag_id: with ``run_id``, which run it is.
        run_id: see ``dag_id``.
        clock: for its moment.
        again: whether this run tried before.
        progress: is told how much was dumped.
        require_holds: raises ParcelSealError if the hold register is not complete.
        confirm: is called before the restore point is published; it may raise.

    Raises:
        UsageError, ServiceError: see `take_backup`; no restore point exists then.
    """
    started = clock.now()
    store, signer = offsite.store, offsite.require_signer()
    cleared = (
        clear_unfinished(store, state, database.name, offsite.trusted, started, require_holds)
        if offsite.may_delete
        else Cleared(0, ())
    )
    mapped = [(one.schema_name, one.table) for one in database.collections.values()]
    published = _published(offsite, state, database.name, dag_id, run_id) if again else None
    if published is None:

        def begin(point: str) -> None:
            begun.begin(
                state,
                store.description,
                database.name,
                point,
                Work.PUBLISH,
                clock.now(),
                dag_id=dag_id,
                run_id=run_id,
            )

        backup = take_backup(
            source,
            database.name,
            clock_columns(database),
            store,
            offsite.recipients,
            mapped=mapped,
            expires_after=lambda moment: moment + timedelta(days=rules.expire_days),
            dag_id=dag_id,
            run_id=run_id,
            on_begin=begin,
            progress=progress,
        )
        store.verify(backup.stored)
        manifest, missing = backup.manifest, backup.missing
        lock_until = manifest.taken_at + timedelta(days=rules.lock_days)
        if confirm:
            confirm()
        manifests.publish(store, manifest, signer, lock_until)
        begun.end(state, database.name, [manifest.id], Ending.PUBLISHED, clock.now())
    else:
        there = {(one.schema_name, one.name) for one in published.tables}
        manifest = published
        missing = tuple(sql.Identifier(*one).as_string() for one in mapped if one not in there)
    # Of an earlier try nobody measured how long it took.
    seconds = None if published else (clock.now() - started).total_seconds()
    seen = StepFindings("backup", CLAUSE, database.name)
    report_unfinished(seen, cleared)
    for table in missing:
        seen.find(
            "backup.mapped.missing",
            Outcome.ATTENTION,
            _("The database has no table {table}, which the data map names.", table=table),
            _("Correct the data map, or find out where the table went."),
        )
    seen.measure("backup.rows", manifest.rows, "rows")
    seen.measure("backup.bytes", manifest.dump.size, "bytes")
    seen.measure("backup.seconds", seconds, "seconds")
    record = seen.record(
        {
            "restore_point": manifest.id,
            "published_by_an_earlier_try": published is not None,
            "cleared": [*cleared.folders],
            "cleared_uploads": cleared.uploads,
            LEFT_TO_PRUNING: not offsite.may_delete,
            "seconds": seconds,
        }
    )
    return record, manifest


def _published(
    offsite: Offsite, state: Engine, database: str, dag_id: str, run_id: str
) -> Manifest | None:
    """The restore point that a run published before it was killed; None where it did not."""
    points, _rejected = listed(offsite, state, database)
    mine = [
        one.manifest
        for one in points
        if (one.manifest.dag_id, one.manifest.run_id) == (dag_id, run_id) and not one.is_copy
    ]
    return mine[-1] if mine else None


def clock_columns(database: MappedDatabase) -> list[ClockColumn]:
    """Return the data map's clock columns with their tables."""
    return [
        ClockColumn(
            one.collection,
            database.collections[one.collection].schema_name,
            database.collections[one.collection].table,
            one.field,
        )
        for one in database.newest
    ]


def prune_restore_points(
    database: str,
    offsite: Offsite,
    rules: BackupRules,
    state: Engine,
    *,
    zone: ZoneInfo,
    now: datetime,
    dag_id: str,
    run_id: str,
    confirm: Callable[[], None] | None = None,
    cleared: Cleared | None = None,
) -> StepRecord:
    """Remove restore points that the rules no longer keep. Call under the database's lock.

    The hold of each is read again, under the lock that keeps new holds out, right before it is
    removed.

    Args:
        database: name of the database in the data map.
        offsite: the store, and whose signatures count.
        rules: of the pack's backup.yaml.
        state: the state database: the holds, and the ledger of removals that have begun.
        zone: in which days begin.
        now: the moment of the decision.
        dag_id: with ``run_id``, which run it is.
        run_id: see ``dag_id``.
        confirm: called before a removal is recorded, and before its first deletion; may raise.
        cleared: leftovers of killed runs that this step cleared, if the backup step may not delete.

    Raises:
        StoreError, ServiceError: store or state database failed; the next run goes on.
    """
    store = offsite.store
    points, rejected = listed(offsite, state, database)
    with state.connect() as conn:
        published = begun.published(conn, database, store.description)
        lost = _lost(published, points, rejected, now - timedelta(days=rules.expire_days))
        held = restore_points_held(conn, database, [*(point.id for point in points), *lost])
    verdicts = _plan(points, rules, held, now, zone)
    removed, refused = [], []

    def remove(point: str, guard: RestorePointGuard) -> None:
        def confirm_all() -> None:
            guard.confirm()
            if confirm:
                confirm()

        confirm_all()  # a removal that is refused here is not recorded as begun
        begun.begin(
            state, store.description, database, point, Work.REMOVE, now,
            dag_id=dag_id, run_id=run_id,
        )  # fmt: skip
        try:
            manifests.remove(store, database, point, now, confirm_all)
        except ObjectLocked:
            refused.append(point)
            for each in folders(store, database, point):
                # Otherwise the next run decides, as after a run that was killed.
                if each.id == point and all(map(each.has, NAMES)):
                    begun.end(state, database, [point], Ending.KEPT, now)
        else:
            removed.append(point)
            begun.end(state, database, [point], Ending.REMOVED, now)

    with RestorePointGuard(state, database) as guard:
        for number, verdict in enumerate(verdicts):
            if not verdict.remove:
                continue
            with guard.removing(verdict.id) as is_held:
                if is_held:
                    verdicts[number] = prune.held(verdict)
                else:
                    remove(verdict.id, guard)
    seen = StepFindings("prune", CLAUSE, database)
    if cleared is not None:
        report_unfinished(seen, cleared)
    report_points(seen, points, rejected, refused)
    copies = [point.id for point in points if point.is_copy]
    report_copies(seen, database, copies)
    report_lost(seen, database, lost, held)
    seen.measure("backup.restore_points", len(points) - len(removed), "1")
    return seen.record(
        {
            "kept": {one.id: one.reason for one in verdicts if not one.remove},
            "removed": {one.id: one.reason for one in verdicts if one.id in removed},
            "refused": refused,
            "copies": copies,
            "history": [
                [one.manifest.taken_at.isoformat(), one.manifest.dump.size] for one in points
            ],
        }
    )


def listed(
    offsite: Offsite, state: Engine, database: str
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return the restore points in the off-site store, and what must not be used."""
    store = offsite.store
    return listed_points(store, database, offsite.trusted, work_reader(state, database, store))


def _plan(
    points: Sequence[RestorePoint],
    rules: BackupRules,
    held: Collection[str],
    now: datetime,
    zone: ZoneInfo,
) -> list[Verdict]:
    """Decide on every restore point; one that only a digest proves takes no other's turn."""
    copies = {point.id for point in points if point.is_copy}
    verdicts = prune.plan([_age(each) for each in points], rules.keep, held, now, zone)
    if not copies:
        return verdicts
    others = [_age(point) for point in points if not point.is_copy]
    of_others = {each.id: each for each in prune.plan(others, rules.keep, held, now, zone)}
    return [of_others.get(verdict.id, verdict) for verdict in verdicts]


def _lost(
    published: Mapping[str, datetime],
    points: Sequence[RestorePoint],
    rejected: Sequence[Rejected],
    since: datetime,
) -> list[str]:
    """Return the ids of published restore points that no run removed, and that are gone."""
    present = {point.id for point in points} | {each.point for each in rejected}
    return sorted(point for point in published.keys() - present if published[point] > since)


def require_plausible_clock(taken: Sequence[datetime], now: datetime) -> None:
    """Refuse to prune by a clock that cannot be right: pruning follows a backup of this very run.

    Raises:
        ServiceError: the newest restore point is from the future, or over a day old.
    """
    newest = max(taken, default=now)
    if newest > now + CLOCK_TOLERANCE or newest < now - timedelta(days=1):
        raise ServiceError(
            f"Nothing was pruned: the newest restore point is of {newest:%Y-%m-%d %H:%M %Z}, and "
            f"this machine's clock says {now:%Y-%m-%d %H:%M %Z}.",
            "Set the clocks of the worker and the database server right.",
        )


def _age(point: RestorePoint) -> prune.Age:
    manifest = point.manifest
    return prune.Age(point.id, manifest.taken_at, manifest.expires_at, point.locked_until)
