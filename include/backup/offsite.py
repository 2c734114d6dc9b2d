"""The steps of `backup_offsite`: check, dump and publish, prune."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg import sql
from sqlalchemy import Engine

from include.backup import listing
from include.backup import manifest as manifests
from include.backup.dump import Progress, take_backup
from include.backup.listing import Ending, Work, listed_points, work_reader
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
from include.backup.point_folder import NAMES, folder, folders
from include.backup.prune import Age, Cleared, Reason, Verdict, clear_unfinished, plan_pruning
from include.backup.snapshot import Clock as ClockColumn
from include.encryption.recipients import Recipient, UnreadableRecipient
from include.evidence.model import Outcome
from include.evidence.register_figures import HOLDS
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings, StepResult
from include.holds.records import RestorePointGuard
from include.holds.registry import restore_points_held
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.rules import BackupRules
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.services.transport import Destination
from include.state.locks import exclusive
from include.workflow.declaration import Queue
from include.workflow.run_context import RunContext
from include.workflow.step import Step
from include.workplace import Workplace

CLOCK_TOLERANCE = timedelta(minutes=5)  # more than clocks that are kept right differ
MANIFEST_PREFIX = "manifest."  # of the file in the run's bundle


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


class Preflight(StepResult):
    """The off-site store, its recipients and the sites, before anything is dumped.

    Attributes:
        may_dump: whether the backup may begin. It may over a route to a store that is not verified,
            although the step fails then.
        store: description of the off-site store.
        store_kind: ``s3`` or ``directory``.
        recipients: names of those to whose keys backups are encrypted.
        at_primary_site: whether each database's backups are on its own site; None if unknown.
        sites: of the store (``store``) and of each database (``database courier``).
    """

    may_dump: bool
    store: str
    store_kind: str
    recipients: list[str]
    at_primary_site: dict[str, bool | None]
    sites: dict[str, str | None]


def check(run: RunContext[None], findings: StepFindings) -> Preflight:
    """Check the store, its site and the recipients' keys before anything is dumped.

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
                _("No connection is configured: this is the sample database."),
                _("Configure the connection that the data map names for this database."),
                subject=database.name,
            )
    may_dump = all(finding.severity is not Outcome.FAIL for finding in findings.findings)
    check_routes(findings, to_stores)  # these fail the run, and its backup is taken
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
    """A published restore point.

    Attributes:
        restore_point: its id.
        published_by_an_earlier_try: whether a try of this run that was killed had published it.
        cleared: prefixes of the folders of killed runs that were removed.
        cleared_uploads: unfinished uploads that were removed.
        leftovers_left_to_pruning: whether this login may not delete in the store, so that the step
            that prunes clears what killed runs left.
        seconds: duration of the backup; None if an earlier try took it.
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
    """Dump, encrypt, store, verify and publish one database.

    Left-overs of killed runs of this installation are cleared first. A run that was killed after it
    had published its restore point takes no second backup.

    Args:
        run: the run.
        findings: of the step; its part is the database.
        progress: is called with the number of dumped bytes.

    Raises:
        UsageError, ServiceError: see `take_backup`; no restore point exists then.
    """
    database = run.database(findings.part)
    with exclusive(run.state, *_lock_of(database.name)):
        started = run.clock.now()
        offsite = offsite_of(run.services)
        cleared = _clear(run, offsite, database.name) if offsite.may_delete else Cleared(0, ())
        mapped = [(each.schema_name, each.table) for each in database.collections.values()]
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
            _("The database has no table {table}, which the data map names.", table=table),
            _("Correct the data map, or find out where the table went."),
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
    """Clear what killed runs of this installation left of a database."""
    return clear_unfinished(
        offsite.store,
        run.state,
        database,
        offsite.trusted,
        run.clock.now(),
        lambda: run.services.require_complete_registers(HOLDS),
    )


def _lock_of(database: str) -> tuple[str, str]:
    """Return the name of a database's lock, and its purpose."""
    return f"backup:{database}", f"a backup of {database}"


def _publish(
    run: RunContext[None],
    offsite: Offsite,
    database: MappedDatabase,
    mapped: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> tuple[Manifest, tuple[str, ...]]:
    """Take, verify and publish a restore point; return it with the mapped tables that it lacks."""
    store, signer, rules = offsite.store, offsite.require_signer(), run.pack.backup
    key = {"dag_id": run.run.dag_id, "run_id": run.run.run_id}

    def begin(point: str) -> None:
        now = run.clock.now()
        listing.begin_work(
            run.state, store.description, database.name, point, Work.PUBLISH, now, **key
        )

    backup = take_backup(
        run.services.database(database.connection),
        database.name,
        clock_columns(database),
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
    listing.end_work(run.state, database.name, [manifest.id], Ending.PUBLISHED, run.clock.now())
    return manifest, backup.missing


def _published(run: RunContext[None], offsite: Offsite, database: str) -> Manifest | None:
    """Return the restore point that this run published before it was killed, or None."""
    points, _rejected = listed(offsite, run.state, database)
    own = [
        point.manifest
        for point in points
        if (point.manifest.dag_id, point.manifest.run_id) == (run.run.dag_id, run.run.run_id)
        and not point.is_copy
    ]
    return own[-1] if own else None


def clock_columns(database: MappedDatabase) -> list[ClockColumn]:
    """Return the data map's clock columns with their tables."""
    columns = [(database.collections[clock.collection], clock) for clock in database.newest]
    return [
        ClockColumn(clock.collection, collection.schema_name, collection.table, clock.field)
        for collection, clock in columns
    ]


class Pruning(StepResult):
    """The decisions on the restore points of a database.

    Attributes:
        kept: reason by id.
        removed: reason by id.
        refused: ids of those that the store refused to remove.
        copies: ids of those whose recorded version the store never had.
        history: moment and encrypted size of each, oldest first.
    """

    kept: dict[str, Reason]
    removed: dict[str, Reason]
    refused: list[str]
    copies: list[str]
    history: list[tuple[datetime, int]]


def prune_restore_points(run: RunContext[None], findings: StepFindings) -> Pruning:
    """Remove restore points that the policy no longer keeps.

    The hold of each is read again, under the lock that keeps new holds out, right before it is
    removed. The run is confirmed to be open before a removal is recorded and before it deletes.

    Raises:
        StoreError, ServiceError: store or state database failed; the next run goes on.
    """
    database, state, rules, now = findings.part, run.state, run.pack.backup, run.clock.now()
    offsite = offsite_of(run.services)
    store = offsite.store
    with exclusive(state, *_lock_of(database)) as confirm_lock:
        points, rejected = listed(offsite, state, database)
        require_plausible_clock([point.manifest.taken_at for point in points], now)
        run.services.require_complete_registers(HOLDS)
        backup = run.records().result(BACKUP, database)
        if backup is not None and backup.leftovers_left_to_pruning:
            report_unfinished(findings, _clear(run, offsite, database))
        with state.connect() as conn:
            published = listing.published_points(conn, database, store.description)
            lost = _lost(published, points, rejected, now - timedelta(days=rules.expire_days))
            held = restore_points_held(conn, database, [*(point.id for point in points), *lost])
        verdicts = _plan(points, rules, held, now, run.zone)
        removed, refused = [], []

        def remove(point: str, guard: RestorePointGuard) -> None:
            def confirm() -> None:
                guard.confirm()
                confirm_lock()
                run.task.confirm_open()

            confirm()  # a removal that is refused here is not recorded as begun
            listing.begin_work(
                state, store.description, database, point, Work.REMOVE, now,
                dag_id=run.run.dag_id, run_id=run.run.run_id,
            )  # fmt: skip
            try:
                manifests.remove(store, folder(database, point), now, confirm)
            except ObjectLocked:
                refused.append(point)
                for each in folders(store, database, point):
                    # Otherwise the next run decides, as after a run that was killed.
                    if each.id == point and all(map(each.has, NAMES)):
                        listing.end_work(state, database, [point], Ending.KEPT, now)
            else:
                removed.append(point)
                listing.end_work(state, database, [point], Ending.REMOVED, now)

        with RestorePointGuard(state, database) as guard:
            for number, verdict in enumerate(verdicts):
                if not verdict.remove:
                    continue
                with guard.removing(verdict.id) as is_held:
                    if is_held:
                        verdicts[number] = replace(verdict, remove=False, reason=Reason.LEGAL_HOLD)
                    else:
                        remove(verdict.id, guard)
    report_points(findings, points, rejected, refused)
    copies = [point.id for point in points if point.is_copy]
    report_copies(findings, database, copies)
    report_lost(findings, database, lost, held)
    findings.measure("backup.restore_points", len(points) - len(removed), "1")
    return Pruning(
        kept={verdict.id: verdict.reason for verdict in verdicts if not verdict.remove},
        removed={verdict.id: verdict.reason for verdict in verdicts if verdict.id in removed},
        refused=refused,
        copies=copies,
        history=[(point.manifest.taken_at, point.manifest.dump.size) for point in points],
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
    verdicts = plan_pruning([_age(each) for each in points], rules.keep, held, now, zone)
    if not copies:
        return verdicts
    others = [_age(point) for point in points if not point.is_copy]
    of_others = {each.id: each for each in plan_pruning(others, rules.keep, held, now, zone)}
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


def _age(point: RestorePoint) -> Age:
    manifest = point.manifest
    return Age(point.id, manifest.taken_at, manifest.expires_at, point.locked_until)


PREFLIGHT = Step(
    name="preflight",
    title=_("The preflight"),
    clause=CLAUSE,
    work=check,
    result=Preflight,
    ends_run="Nothing was dumped: see the findings in the run's report.",
    goes_on=lambda preflight: preflight.may_dump,
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
    title=_("Pruning old restore points of {part}", part=""),
    clause=CLAUSE,
    work=prune_restore_points,
    result=Pruning,
    queue=Queue.RETENTION,  # backup workers delete nothing
)
