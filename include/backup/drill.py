"""Define the steps of `drill_restore`, which restores a backup into a scratch database as a test.

The steps choose a restore point, restore it, compare the restored copy with the original, and drop
the copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import SystemRandom
from typing import Literal

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from include.backup import manifest as manifests
from include.backup.compare import Definitions, check_foreign_keys, compare
from include.backup.drill_findings import (
    STOP,
    Newest,
    judge_check,
    judge_locale,
    judge_newest,
    judge_replay,
    judge_schema,
    judge_tables,
    judge_targets,
)
from include.backup.drill_proofs import PointResult
from include.backup.explain import CheckRefusesRows
from include.backup.listing import PointRemoved, raising_point_removed
from include.backup.manifest import RestorePoint
from include.backup.offsite import listed, newest_record_columns, offsite_of
from include.backup.offsite_findings import CLAUSE
from include.backup.operations import operations_reader
from include.backup.restore import policies_lifted, restore
from include.backup.scratch import drop_left_over, scratch, without_event_triggers
from include.backup.server_needs import (
    DatabaseLocale,
    require_dumpable,
    require_fitting_target,
    require_needs,
)
from include.backup.snapshot import newest_records
from include.backup.source import Source
from include.encryption.crypto import ContentRefused
from include.erasure.replay import ReplayRules, replay, replay_rules_of
from include.erasure.tables import table_names_of
from include.evidence.model import Metric, Outcome
from include.evidence.register_figures import ERASURES
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.service_container import Services
from include.services.database import DatabaseAddress, connected
from include.services.errors import ControlFailed, ParcelSealError
from include.state.locks import hold_exclusive_lock
from include.state.tables import drill as drill_table
from include.workflow.run_context import RunContext
from include.workflow.step import Step

MOST_REASONS = 3  # maximum number of refused restore points whose reason is named


class Choice(PointResult):
    """The result of the step that chooses the restore point for a restore drill.

    Attributes:
        of: number of usable restore points from which the step chose one.
        latest_taken_at: time at which the newest of these restore points was taken.
    """

    of: int
    latest_taken_at: datetime


def choose(run: RunContext[None], findings: StepFindings) -> Choice:
    """Choose a restore point, and check that the server for restore drills can restore it.

    Before this, the scratch databases that remain from interrupted restore drills are dropped.

    Raises:
        ControlFailed: no restore point can be used.
        UsageError: the drill server lacks features that the database needs.
        ServiceError: the drill server or the off-site store cannot be reached.
    """
    database, offsite = findings.part, offsite_of(run.services)
    server = run.services.database("drill_db")
    drop_left_over(server, run.state, run.clock)
    points, rejected = listed(offsite, run.state, database)
    if rejected and not points:
        reasons = "; ".join(rejected_folder.reason for rejected_folder in rejected[:MOST_REASONS])
        raise ControlFailed(
            f"None of {len(rejected)} restore points can be trusted: {reasons}",
            "Do not use these restore points. Take a new backup, run a restore drill with it, and "
            "open an incident.",
        )
    rule = run.parameters.get("choose", "policy")
    chosen = pick(
        points,
        drilled_points(run.state, database),
        rule if rule != "policy" else run.pack.backup.drill.choose,
    )
    source = Source(offsite.store, chosen.manifest, run.services.drill_key())
    require_drill_server(source, server)
    for rejected_folder in rejected:
        findings.find(
            "drill.untrusted",
            Outcome.FAIL,
            _(
                "The restore point {key} cannot be trusted: {reason}",
                key=rejected_folder.key,
                reason=rejected_folder.reason,
            ),
            STOP,
        )
    latest = max(point.manifest.taken_at for point in points)
    return Choice(restore_point=chosen.id, of=len(points), latest_taken_at=latest)


def pick(points: Sequence[RestorePoint], drilled: Collection[str], rule: str) -> RestorePoint:
    """Return the restore point that a restore drill restores.

    Args:
        points: usable restore points of the database.
        drilled: ids of the restore points that earlier restore drills have restored successfully.
        rule: ``latest`` for the newest restore point, or ``undrilled`` for a random one that is not
            in ``drilled``. If all are in ``drilled``, the newest is returned.

    Raises:
        ControlFailed: the database has no restore point.
    """
    if not points:
        raise ControlFailed(
            "There is no restore point for the restore drill.", "Run backup_offsite first."
        )
    latest = max(points, key=lambda point: (point.manifest.taken_at, point.id))
    if rule == "latest":
        return latest
    fresh = [point for point in points if point.id not in drilled]
    return SystemRandom().choice(fresh) if fresh else latest


def drilled_points(state: Engine, database: str) -> set[str]:
    """Return the ids of a database's restore points that restore drills restored successfully."""
    query = select(drill_table.c.restore_point).where(
        drill_table.c.database == database, drill_table.c.outcome != Outcome.FAIL
    )
    with state.connect() as conn:
        return set(conn.scalars(query))


def require_drill_server(source: Source, server: DatabaseAddress) -> None:
    """Check that the drill server has all features that the database in a backup needs.

    The table of contents of the backup's archive names these features. Therefore, the check takes
    place before the backup is downloaded. It is skipped if the table of contents differs from the
    manifest. It is also skipped if the table of contents cannot be read without downloading the
    backup, as in restore points of earlier versions of ParcelSeal. The restore repeats the check.

    Args:
        source: chosen restore point.
        server: drill server.

    Raises:
        UsageError: the server lacks features that the database needs. The message names all of
            them.
        ServiceError: the server or the off-site store cannot be reached.
    """
    if source.manifest.head is None:
        return
    try:
        _head, entries = source.head()
    except ContentRefused:
        return
    require_needs(entries, server, is_target=False)


CHOOSE = Step(
    name="choose",
    title=_("The selection of a restore point for {part}", part=""),
    clause=CLAUSE,
    work=choose,
    result=Choice,
)


@contextmanager
def chosen_source(run: RunContext[None], database: str) -> Iterator[Source]:
    """Open the restore point that this run chose in the step `choose`, until the block ends.

    Raises:
        PointRemoved: the block failed because another run has pruned the restore point.
    """
    offsite, point = offsite_of(run.services), run.require(CHOOSE, database).restore_point
    read_operations = operations_reader(run.state, database, offsite.store)
    with raising_point_removed(offsite.store, database, point, read_operations):
        manifest = manifests.load(offsite.store, database, point, offsite.trusted).manifest
        yield Source(offsite.store, manifest, run.services.drill_key())


@dataclass(frozen=True)
class DrillTarget:
    """The server and settings with which a restore drill restores a database.

    Attributes:
        server: server on which the scratch database is created.
        schedule: settings of retention.yaml for the replay of erasures.
        jobs: number of processes that load rows at the same time.
    """

    server: DatabaseAddress
    schedule: ReplayRules = field(default_factory=ReplayRules)
    jobs: int = 2


def drill_target(services: Services, database: MappedDatabase) -> DrillTarget:
    """Return the drill server and the settings for restore drills of a mapped database."""
    schedule = replay_rules_of(database, services.pack.retention_of(database.name))
    return DrillTarget(services.database("drill_db"), schedule)


class RestoreDrill(PointResult):
    """The result of the step that restores a restore point and compares it with the original.

    If a CHECK constraint prevented the load, all fields except the restore point are None. In the
    *replay of erasures*, records of the erasure ledger are deleted or masked again in the restored
    copy.

    Attributes:
        dump_checked_by: property by which the stored backup was identified: ``version`` or
            ``digest``.
        manifest_sha256: SHA-256 (hex) of the manifest.
        taken_at: time at which the backup was taken.
        tables: number of restored tables.
        rows: number of restored rows.
        compared: number of tables whose content was compared.
        reordered: labels of tables that have the same rows as the original in another order.
        definitions: objects whose definitions differ from the original.
        left_out: labels of objects that were not restored.
        foreign_keys: number of foreign keys that were checked row by row.
        newest: date and time of the newest record; "none" if the copy has no record. None if the
            data map names no column that shows the newest record.
        erasures: number of entries that the erasure ledger has for the database.
        replayed: number of records that were deleted again.
        remasked: number of records that were masked again.
        remaining: number of records that are still present, or still not masked, after the replay
            of erasures.
        large_objects_deleted: number of large objects that were deleted because only records that
            were deleted again referred to them.
        views_refreshed: number of materialized views that were refreshed.
        holding: number of rows that still contain keys of erased records after the replay, by table
            or view.
        skipped: names of collections that were not searched for erased records, because the copy
            lacks their table.
        not_looked_for: number of entries of the erasure ledger whose records could not be searched
            for in the copy.
    """

    dump_checked_by: Literal["digest", "version"] | None = None
    manifest_sha256: str | None = None
    taken_at: datetime | None = None
    tables: int | None = None
    rows: int | None = None
    compared: int | None = None
    reordered: tuple[str, ...] | None = None
    definitions: Definitions | None = None
    left_out: tuple[str, ...] | None = None
    foreign_keys: int | None = None
    newest: Newest = None
    erasures: int | None = None
    replayed: int | None = None
    remasked: int | None = None
    remaining: int | None = None
    large_objects_deleted: int | None = None
    views_refreshed: int | None = None
    holding: dict[str, int] | None = None
    skipped: tuple[str, ...] | None = None
    not_looked_for: int | None = None


def drill(run: RunContext[None], findings: StepFindings) -> RestoreDrill:
    """Restore the chosen restore point into a scratch database, and compare it with the original.

    After the comparison, the records of the erasure ledger are deleted or masked again in the copy.
    Then the scratch database is dropped.

    Raises:
        PointRemoved: another run has pruned the restore point since it was chosen.
        UsageError, ContentRefused, ServiceError: see `restore_and_compare`.
    """
    database = run.database(findings.part)
    choice = run.require(CHOOSE, database.name)
    try:
        with hold_exclusive_lock(
            run.state, f"drill:{database.name}", f"a drill of {database.name}"
        ):
            run.services.require_complete_registers(ERASURES)
            with chosen_source(run, database.name) as source:
                target, latest = drill_target(run.services, database), choice.latest_taken_at
                result = restore_and_compare(run, findings, source, target, latest)
    except PointRemoved:
        raise  # no result for the restore point
    except ParcelSealError:  # the trend also has failed drills
        record_drill(run, database.name, choice.restore_point, Outcome.FAIL)
        raise
    outcome = findings.record(result).outcome
    record_drill(run, database.name, choice.restore_point, outcome, findings.metrics)
    return result


def restore_and_compare(
    run: RunContext[None],
    findings: StepFindings,
    source: Source,
    target: DrillTarget,
    latest_taken_at: datetime,
    progress: Callable[[str], None] | None = None,
) -> RestoreDrill:
    """Restore into a scratch database, compare it, erase records in it again, and drop it.

    Records of the erasure ledger are deleted or masked again: this is the replay of erasures.
    Scratch databases that remain from interrupted restore drills are dropped first. The measured
    restore time is the time for loading the copy and for the replay; the comparison is not
    included. The measured recovery point is always the age of the newest restore point, even if
    another restore point is restored.

    Args:
        run: run of the workflow.
        findings: findings of the step. `findings.part` is the name of the database.
        source: restore point.
        target: server and settings for the restore.
        latest_taken_at: time at which the newest restore point was taken.
        progress: function that is called with the name of each stage of the restore.

    Raises:
        UsageError: the server is too old or lacks extensions or collations, or the configuration
            prevents the restore.
        ContentRefused: the restore point differs from its manifest, or the key cannot decrypt it.
            If this call had already created the scratch database, it has tried to drop the
            database.
        ServiceError: the server or the store failed. If this call had already created the scratch
            database, it has tried to drop the database.
    """
    database, clock = run.database(findings.part), run.clock
    manifest = source.manifest
    require_fitting_target(
        manifest,
        target.server,
        "Point the connection drill_db to a server that is not older than the original.",
    )
    require_dumpable(target.server)  # the copy is read back
    _head, entries = source.head()
    require_needs(entries, target.server, is_target=False)
    locale = DatabaseLocale.of_archive(entries)
    drop_left_over(target.server, run.state, clock)
    begun = clock.now()
    with scratch(
        target.server,
        run.state,
        dag_id=run.run.dag_id,
        run_id=run.run.run_id,
        clock=clock,
        locale=locale,
    ) as scratch_copy:
        copy = without_event_triggers(scratch_copy)
        try:
            restored = restore(source, copy, jobs=target.jobs, progress=progress)
        except CheckRefusesRows as refused:
            judge_check(findings, refused)
            return RestoreDrill(restore_point=manifest.id)
        usable_after = (clock.now() - begun).total_seconds()
        comparison = compare(source, copy)
        judge_tables(findings, (*restored.differences, *comparison.missing), comparison.different)
        judge_schema(findings, comparison, manifest)
        with policies_lifted(copy), connected(copy) as connection:
            keys = check_foreign_keys(connection)
            for name, rows in keys.broken.items():
                findings.find(
                    "drill.foreign_key",
                    Outcome.FAIL,
                    _(
                        "The foreign key {name} is broken: {rows} records refer to records "
                        "that do not exist.",
                        rows=rows,
                        name=name,
                    ),
                    STOP,
                )
            # The timezone of the original, and only columns that existed at the time of the backup.
            connection.execute("SELECT set_config('TimeZone', %s, true)", [manifest.timezone])
            had = {(record.collection, record.field) for record in manifest.newest}
            columns = newest_record_columns(database)
            present = [column for column in columns if (column.collection, column.field) in had]
            newest = newest_records(connection, present)
            judge_locale(findings, locale, DatabaseLocale.of_database(connection))
            connection.rollback()
            moments = [record.moment for record in newest]
            fresh = judge_newest(findings, moments, manifest, run.pack.backup.drill)
            replay_begun = clock.now()
            replayed = replay(
                connection,
                database.name,
                table_names_of(database),
                run.state,
                run.services.erasure_keys,
                target.schedule,
                clock.now(),
            )
            usable_after += (clock.now() - replay_begun).total_seconds()
    judge_replay(findings, replayed)
    judge_targets(findings, database, usable_after, begun - latest_taken_at)
    return RestoreDrill(
        restore_point=manifest.id,
        dump_checked_by=source.checked_by,
        manifest_sha256=hashlib.sha256(manifest.as_bytes()).hexdigest(),
        taken_at=manifest.taken_at,
        tables=restored.tables,
        rows=restored.rows,
        compared=comparison.compared,
        reordered=comparison.reordered,
        definitions=comparison.definitions,
        left_out=restored.left_out,
        foreign_keys=keys.checked,
        newest=fresh,
        erasures=replayed.entries,
        replayed=replayed.replayed,
        remasked=replayed.remasked,
        remaining=replayed.remaining,
        large_objects_deleted=replayed.large_objects,
        views_refreshed=replayed.refreshed,
        holding=dict(replayed.rows_with_erased_keys),
        skipped=replayed.skipped,
        not_looked_for=replayed.unsearchable_entries,
    )


def record_drill(
    run: RunContext[None],
    database: str,
    point: str,
    outcome: Outcome,
    metrics: Sequence[Metric] = (),
) -> None:
    """Record the outcome of a restore drill in the state database.

    Reports show the recorded drills as a trend. With the rule ``undrilled``, `pick` chooses a
    restore point for which no successful drill is recorded.

    Args:
        run: run of the workflow.
        database: name of the database in the data map.
        point: id of the restore point.
        outcome: outcome of the drill for this database.
        metrics: measurements of the drill. The restore time and the recovery point among them are
            also recorded.
    """
    figures = {metric.name: metric.value for metric in metrics}
    values = {
        "restore_point": point,
        "drilled_at": run.clock.now(),
        "outcome": outcome,
        "restore_seconds": figures.get("drill.rto_seconds"),
        "rpo_seconds": figures.get("drill.rpo_seconds"),
    }
    key = {"dag_id": run.run.dag_id, "run_id": run.run.run_id, "database": database}
    with run.state.begin() as conn:
        conn.execute(
            insert(drill_table)
            .values(**key, **values)
            .on_conflict_do_update(constraint=drill_table.primary_key, set_=values)
        )


class DroppedScratch(StepResult):
    """The result of the step that drops the scratch databases of interrupted restore drills.

    Attributes:
        databases: names of the dropped scratch databases.
    """

    databases: list[str]


def drop_scratch(run: RunContext[None], findings: StepFindings) -> DroppedScratch:
    """Drop the scratch databases that remain on the drill server from interrupted restore drills.

    Raises:
        ServiceError: the server cannot be reached.
    """
    del findings
    server = run.services.database("drill_db")
    return DroppedScratch(databases=drop_left_over(server, run.state, run.clock))


DROP_SCRATCH = Step(
    name="drop_scratch",
    title=_("The removal of scratch databases"),
    clause=CLAUSE,
    work=drop_scratch,
    result=DroppedScratch,
    runs_always=True,
)
DRILL = Step(
    name="drill",
    title=_("The restore of {part}", part=""),
    clause=CLAUSE,
    work=drill,
    result=RestoreDrill,
)
