"""Define the steps of `backup_offsite`: check the store and the keys, back up, and prune."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg import sql
from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup import operations
from include.backup.dump import Progress, take_backup
from include.backup.listing import listed_points
from include.backup.manifest import Manifest, Rejected, RestorePoint
from include.backup.offsite_findings import (
    CLAUSE,
    check_recipients,
    check_routes,
    check_sites,
    check_store,
    report_copies,
    report_lost,
    report_points,
    report_unfinished,
)
from include.backup.operations import Ending, Operation, operations_reader
from include.backup.point_folder import NAMES, folder, folders
from include.backup.prune import (
    Cleared,
    PruningDecision,
    Reason,
    RestorePointTimes,
    clear_unfinished,
    plan_pruning,
)
from include.backup.snapshot import NewestRecordColumn
from include.encryption.recipients import Recipient, UnreadableRecipient
from include.evidence.model import Outcome
from include.evidence.register_figures import HOLDS
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings, StepResult
from include.holds.records import RestorePointGuard
from include.holds.registry import restore_points_on_hold
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules
from include.service_container import Services
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.services.transport import Destination
from include.state.locks import hold_exclusive_lock
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import Step

CLOCK_TOLERANCE = timedelta(minutes=5)  # synchronized clocks differ less
MANIFEST_PREFIX = "manifest."  # of the file name in the evidence bundle


@dataclass(frozen=True)
class Offsite:
    """The off-site store, and the keys that encrypt, sign and verify its backups.

    Attributes:
        store: off-site store.
        recipients: recipients of the encrypted backups.
        unreadable: recipients whose certificates cannot be used.
        signer: key that signs manifests; None if it is not configured.
        trusted: public keys (PEM) whose signatures of manifests are accepted.
        may_delete: whether the credentials of the connection permit the deletion of objects in the
            store. If not, only the step that prunes restore points deletes the leftovers of killed
            runs.
    """

    store: ObjectStore
    recipients: Sequence[Recipient]
    unreadable: Sequence[UnreadableRecipient]
    signer: Signer | None
    trusted: Sequence[bytes]
    may_delete: bool = True

    def require_signer(self) -> Signer:
        """Return the key that signs manifests.

        Raises:
            UsageError: the key is not configured.
        """
        if self.signer is None:
            raise UsageError(
                "The key that signs manifests is not configured.",
                "Set `signing_key` in the extra of the connection offsite_store: PEM or a file.",
            )
        return self.signer


def offsite_of(services: Services) -> Offsite:
    """Return the off-site store, with the recipients and keys of the backups in it.

    They come from the connection `offsite_store`. The keys that sign and verify manifests may also
    come from the connection `evidence_store`.

    Raises:
        UsageError: one of these two connections is missing or cannot be used.
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


class Preflight(StepResult):
    """The result of the checks that precede the backups: off-site store, recipients and sites.

    Attributes:
        may_dump: whether the backups may be made: True if no check has failed. An unverified
            network route to a store fails the step, but does not make this False.
        store: description of the off-site store.
        store_kind: ``s3`` or ``directory``.
        recipients: names of the recipients of the backups.
        at_primary_site: whether the backups of a database would be at the site of the database, by
            database name; None if this is unknown.
        sites: names of the sites; None for a site that is not declared. The key ``store`` is for
            the store, and the key ``database <name>`` for each database.
    """

    may_dump: bool
    store: str
    store_kind: str
    recipients: list[str]
    at_primary_site: dict[str, bool | None]
    sites: dict[str, str | None]


def check(run: RunContext[None], findings: StepFindings) -> Preflight:
    """Check the off-site store, its site and the recipients' keys before the databases are dumped.

    Raises:
        StoreError: the store cannot be reached.
    """
    offsite, databases = offsite_of(run.services), run.pack.databases.values()
    offsite.require_signer()
    routes = run.services.routes()
    to_stores = [route for route in routes if route.destination is Destination.STORE]
    check_routes(findings, [route for route in routes if route not in to_stores])
    problems = check_store(findings, offsite.store)
    at_primary_site = check_sites(findings, databases, offsite.store, problems)
    rules = run.pack.backup.recipients
    check_recipients(findings, offsite.recipients, offsite.unreadable, rules, run.clock.now())
    for database in databases:
        if run.services.is_local(database.connection):
            findings.find(
                "backup.sample",
                Outcome.ATTENTION,
                _(
                    "No connection is configured for this database: the run backs up the sample "
                    "database."
                ),
                _("Ask the data engineers to configure the connection of the database."),
                subject=database.name,
                for_engineers=_(
                    "Configure the connection `{connection}`, which the data map names.",
                    connection=database.connection,
                ),
            )
    may_dump = all(finding.severity is not Outcome.FAIL for finding in findings.findings)
    check_routes(findings, to_stores)  # fails the run, but does not prevent the backup
    return Preflight(
        may_dump=may_dump,
        store=offsite.store.description,
        store_kind=offsite.store.kind,
        recipients=[recipient.name for recipient in offsite.recipients],
        at_primary_site=at_primary_site,
        sites={
            "store": offsite.store.site,
            **{f"database {database.name}": database.site for database in databases},
        },
    )


class Backup(StepResult):
    """The result of the step that backs up one database.

    Attributes:
        restore_point: id of the restore point.
        published_by_an_earlier_try: whether an earlier try of this task published the restore point
            before it was killed.
        cleared: prefixes of the folders of killed runs that this step deleted.
        cleared_uploads: number of deleted unfinished uploads.
        leftovers_left_to_pruning: whether this step may not delete objects in the store. If so, the
            step that prunes restore points deletes the leftovers of killed runs.
        seconds: duration of the backup in seconds; None if an earlier try made it.
    """

    restore_point: str
    published_by_an_earlier_try: bool
    cleared: list[str]
    cleared_uploads: int
    leftovers_left_to_pruning: bool = False
    seconds: float | None


def back_up(
    run: RunContext[None], findings: StepFindings, progress: Progress | None = None
) -> Backup:
    """Back up one database: dump, encrypt, store and verify it, and publish the restore point.

    Leftovers of killed runs of this installation are deleted first. If an earlier try of this task
    has already published a restore point, no second backup is made.

    Args:
        run: run of the workflow.
        findings: findings of the step. `findings.part` is the name of the database.
        progress: function that is called with "dumped" and the number of bytes dumped so far.

    Raises:
        UsageError, ServiceError: see `take_backup`. No restore point was published.
    """
    database = run.database(findings.part)
    with hold_exclusive_lock(run.state, *_lock_of(database.name)):
        started = run.clock.now()
        offsite = offsite_of(run.services)
        cleared = _clear(run, offsite, database.name) if offsite.may_delete else Cleared(0, ())
        mapped = [
            (collection.schema_name, collection.table)
            for collection in database.collections.values()
        ]
        published = _published(run, offsite, database.name) if run.task.is_repeated else None
        if published is None:
            manifest, missing = _publish(run, offsite, database, mapped, progress)
        else:
            manifest = published
            tables = {(table.schema_name, table.name) for table in published.tables}
            missing = tuple(sql.Identifier(*n).as_string() for n in mapped if n not in tables)
        # The duration of an earlier try is unknown.
        seconds = None if published else (run.clock.now() - started).total_seconds()
    run.keep_file(f"{MANIFEST_PREFIX}{database.name}.json", manifest.as_bytes())
    report_unfinished(findings, cleared)
    for table in missing:
        findings.find(
            "backup.mapped.missing",
            Outcome.ATTENTION,
            _("The database lacks the table {table}, which the data map names.", table=table),
            _("Correct the data map, or find out why the database lacks the table."),
        )
    findings.measure("backup.rows", manifest.rows, "rows")
    findings.measure("backup.bytes", manifest.dump.size, "bytes")
    findings.measure("backup.seconds", seconds, "seconds")
    return Backup(
        restore_point=manifest.id,
        published_by_an_earlier_try=published is not None,
        cleared=[*cleared.folders],
        cleared_uploads=cleared.uploads,
        leftovers_left_to_pruning=not offsite.may_delete,
        seconds=seconds,
    )


def _clear(run: RunContext[None], offsite: Offsite, database: str) -> Cleared:
    """Delete the unfinished uploads and folders of killed runs in the store for a database."""
    return clear_unfinished(
        offsite.store,
        run.state,
        database,
        offsite.trusted,
        run.clock.now(),
        lambda: run.services.require_complete_registers(HOLDS),
    )


def _lock_of(database: str) -> tuple[str, str]:
    """Return the name of the lock for the backups of a database, and its purpose as text."""
    return f"backup:{database}", f"a backup of {database}"


def _publish(
    run: RunContext[None],
    offsite: Offsite,
    database: MappedDatabase,
    mapped: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> tuple[Manifest, tuple[str, ...]]:
    """Back up a database, verify the stored dump, and publish the restore point.

    Args:
        run: run of the workflow.
        offsite: off-site store and keys.
        database: database to back up.
        mapped: schema and name of each table in the data map.
        progress: function that is called with "dumped" and the number of bytes dumped so far.

    Returns:
        The manifest, and the names of mapped tables that the database lacks.
    """
    store, signer, rules = offsite.store, offsite.require_signer(), run.pack.backup
    key = {"dag_id": run.run.dag_id, "run_id": run.run.run_id}

    def begin(point: str) -> None:
        now = run.clock.now()
        operations.begin_operation(
            run.state, store.description, database.name, point, Operation.PUBLISH, now, **key
        )

    backup = take_backup(
        run.services.database(database.connection),
        database.name,
        newest_record_columns(database),
        store,
        offsite.recipients,
        mapped=mapped,
        expires_after=lambda moment: moment + timedelta(days=rules.expire_days),
        on_begin=begin,
        progress=progress,
        **key,
    )
    store.verify(backup.stored)
    manifest = backup.manifest
    lock_until = manifest.taken_at + timedelta(days=rules.lock_days)
    run.task.confirm_open()
    manifests.publish(store, manifest, signer, lock_until)
    operations.end_operations(
        run.state, database.name, [manifest.id], Ending.PUBLISHED, run.clock.now()
    )
    return manifest, backup.missing


def _published(run: RunContext[None], offsite: Offsite, database: str) -> Manifest | None:
    """Return the manifest that an earlier try of this task published, or None."""
    points, _rejected = listed(offsite, run.state, database)
    own = [
        point.manifest
        for point in points
        if (point.manifest.dag_id, point.manifest.run_id) == (run.run.dag_id, run.run.run_id)
        and not point.is_copy
    ]
    return own[-1] if own else None


def newest_record_columns(database: MappedDatabase) -> list[NewestRecordColumn]:
    """Return the columns that show the newest record of a database, as named in its data map."""
    columns = [(database.collections[newest.collection], newest) for newest in database.newest]
    return [
        NewestRecordColumn(
            newest.collection, collection.schema_name, collection.table, newest.field
        )
        for collection, newest in columns
    ]


class Pruning(StepResult):
    """The result of the step that prunes the restore points of one database.

    Attributes:
        kept: reason why each kept restore point was kept, by its id.
        removed: reason why each removed restore point was removed, by its id.
        refused: ids of restore points that the store refused to delete.
        copies: ids of restore points whose dump in the store is not the version that the manifest
            records.
        history: time and encrypted size in bytes of each restore point that existed before the
            pruning, oldest first.
    """

    kept: dict[str, Reason]
    removed: dict[str, Reason]
    refused: list[str]
    copies: list[str]
    history: list[tuple[datetime, int]]


def prune_restore_points(run: RunContext[None], findings: StepFindings) -> Pruning:
    """Remove those restore points of one database that the rules of the policy pack do not keep.

    Before each removal, the legal holds are read again. Until the restore point is removed, a lock
    prevents new legal holds. The step also checks before each removal that its run is still open,
    and stops if the run has ended.

    Raises:
        StoreError, ServiceError: the store or the state database failed. The next run continues.
    """
    database, state, rules, now = findings.part, run.state, run.pack.backup, run.clock.now()
    offsite = offsite_of(run.services)
    store = offsite.store
    with hold_exclusive_lock(state, *_lock_of(database)) as confirm_lock:
        points, rejected = listed(offsite, state, database)
        require_plausible_clock([point.manifest.taken_at for point in points], now)
        run.services.require_complete_registers(HOLDS)
        backup = run.records().result(BACKUP, database)
        if backup is not None and backup.leftovers_left_to_pruning:
            report_unfinished(findings, _clear(run, offsite, database))
        with state.connect() as conn:
            published = operations.published_points(conn, database, store.description)
            lost = _lost(published, points, rejected, now - timedelta(days=rules.expire_days))
            held = restore_points_on_hold(conn, database, [*(point.id for point in points), *lost])
        decisions = _plan(points, rules, held, now, run.zone)
        removed, refused = [], []

        def remove(point: str, guard: RestorePointGuard) -> None:
            def confirm() -> None:
                guard.confirm()
                confirm_lock()
                run.task.confirm_open()

            confirm()  # a removal that is refused here is not recorded as begun
            operations.begin_operation(
                state, store.description, database, point, Operation.REMOVE, now,
                dag_id=run.run.dag_id, run_id=run.run.run_id,
            )  # fmt: skip
            try:
                manifests.remove(store, folder(database, point), now, confirm)
            except ObjectLocked:
                refused.append(point)
                for point_folder in folders(store, database, point):
                    # Otherwise the operation stays unfinished, and the next run decides.
                    if point_folder.id == point and all(map(point_folder.has, NAMES)):
                        operations.end_operations(state, database, [point], Ending.KEPT, now)
            else:
                removed.append(point)
                operations.end_operations(state, database, [point], Ending.REMOVED, now)

        with RestorePointGuard(state, database) as guard:
            for number, decision in enumerate(decisions):
                if not decision.remove:
                    continue
                with guard.removing(decision.id) as is_held:
                    if is_held:
                        decisions[number] = replace(
                            decision, remove=False, reason=Reason.LEGAL_HOLD
                        )
                    else:
                        remove(decision.id, guard)
    report_points(findings, points, rejected, refused)
    copies = [point.id for point in points if point.is_copy]
    report_copies(findings, database, copies)
    report_lost(findings, database, lost, held)
    findings.measure("backup.restore_points", len(points) - len(removed), "1")
    return Pruning(
        kept={decision.id: decision.reason for decision in decisions if not decision.remove},
        removed={decision.id: decision.reason for decision in decisions if decision.id in removed},
        refused=refused,
        copies=copies,
        history=[(point.manifest.taken_at, point.manifest.dump.size) for point in points],
    )


def listed(
    offsite: Offsite, state: Engine, database: str
) -> tuple[list[RestorePoint], list[Rejected]]:
    """Return a database's usable restore points in the off-site store, and the unusable folders."""
    store = offsite.store
    return listed_points(
        store, database, offsite.trusted, operations_reader(state, database, store)
    )


def _plan(
    points: Sequence[RestorePoint],
    rules: BackupRules,
    held: Collection[str],
    now: datetime,
    zone: ZoneInfo,
) -> list[PruningDecision]:
    """Decide for every restore point whether to keep or remove it.

    If the dump of a restore point is a copy, its digest was not compared with the manifest, and the
    restore point may be unusable. Therefore, such a restore point does not replace another restore
    point of the same day, week or month.

    Args:
        points: usable restore points of the database.
        rules: settings of backup.yaml.
        held: ids of restore points under a legal hold.
        now: time of the decision.
        zone: timezone in which days begin.
    """
    copies = {point.id for point in points if point.is_copy}
    decisions = plan_pruning([_times_of(point) for point in points], rules.keep, held, now, zone)
    if not copies:
        return decisions
    others = [_times_of(point) for point in points if not point.is_copy]
    of_others = {
        decision.id: decision for decision in plan_pruning(others, rules.keep, held, now, zone)
    }
    return [of_others.get(decision.id, decision) for decision in decisions]


def _lost(
    published: Mapping[str, datetime],
    points: Sequence[RestorePoint],
    rejected: Sequence[Rejected],
    since: datetime,
) -> list[str]:
    """Return the ids of published restore points that are missing in the store.

    Args:
        published: restore points that runs have published and not removed. The key is the id, and
            the value is the time at which the backup began.
        points: usable restore points in the store.
        rejected: rejected folders in the store.
        since: earliest start of a backup. Restore points whose backup began earlier are ignored.
    """
    present = {point.id for point in points} | {
        rejected_folder.point for rejected_folder in rejected
    }
    return sorted(point for point in published.keys() - present if published[point] > since)


def require_plausible_clock(taken: Sequence[datetime], now: datetime) -> None:
    """Refuse to prune if the clock of this machine is implausible.

    Each run makes a backup before it prunes. Therefore, the newest restore point must be recent. If
    it is not, the clock is probably wrong.

    Args:
        taken: times at which the restore points were taken.
        now: current time.

    Raises:
        ServiceError: the newest restore point is dated in the future, or more than one day ago.
    """
    newest = max(taken, default=now)
    if newest > now + CLOCK_TOLERANCE or newest < now - timedelta(days=1):
        raise ServiceError(
            f"Nothing was pruned: the newest restore point is of {newest:%Y-%m-%d %H:%M %Z}, but "
            f"the clock of this machine is at {now:%Y-%m-%d %H:%M %Z}.",
            "Correct the clocks of the worker and the database server.",
        )


def _times_of(point: RestorePoint) -> RestorePointTimes:
    manifest = point.manifest
    return RestorePointTimes(point.id, manifest.taken_at, manifest.expires_at, point.locked_until)


PREFLIGHT = Step(
    name="preflight",
    title=_("The preflight"),
    clause=CLAUSE,
    work=check,
    result=Preflight,
    ends_run="No database was backed up: see the findings in the run's report.",
    continues_on_failure=lambda preflight: preflight.may_dump,
)
BACKUP = Step(
    name="backup",
    title=_("The backup of {part}", part=""),
    clause=CLAUSE,
    work=back_up,
    result=Backup,
)
PRUNE = Step(
    name="prune",
    title=_("The pruning of old restore points of {part}", part=""),
    clause=CLAUSE,
    work=prune_restore_points,
    result=Pruning,
    queue=Queue.RETENTION,  # backup workers delete nothing
)
