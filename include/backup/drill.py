"""Steps of `drill_restore`: choose a restore point, restore it, compare it, replay erasures."""

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
from include.backup.explain import CheckRefusesRows
from include.backup.listing import PointRemoved, naming_removals, work_reader
from include.backup.manifest import RestorePoint
from include.backup.offsite import clock_columns, listed, offsite_of
from include.backup.offsite_findings import CLAUSE
from include.backup.proved import PointResult
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
from include.encryption.crypto import Refused
from include.erasure.places import places_of
from include.erasure.replay import Schedule, replay, schedule_of
from include.evidence.model import Metric, Outcome
from include.evidence.register_figures import ERASURES
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.services.database import DatabaseAddress, connected
from include.services.errors import ControlFailed, ParcelSealError
from include.state.locks import exclusive
from include.state.tables import drill as drill_table
from include.workflow.run_context import RunContext
from include.workflow.step import Step
from include.workplace import Workplace

MOST_REASONS = 3  # of refused restore points, in one line


class Choice(PointResult):
    """The restore point to drill.

    Attributes:
        of: number of usable restore points.
        latest_taken_at: moment of the newest of them.
    """

    of: int
    latest_taken_at: datetime


def choose(run: RunContext[None], findings: StepFindings) -> Choice:
    """Choose the restore point to drill, check the server, drop databases of killed drills.

    Raises:
        ControlFailed: no restore point can be used.
        UsageError: the drill server lacks features of the database.
        ServiceError: server or store cannot be reached.
    """
    database, offsite = findings.part, offsite_of(run.services)
    server = run.services.database("drill_db")
    drop_left_over(server, run.state, run.clock)
    points, rejected = listed(offsite, run.state, database)
    if rejected and not points:
        reasons = "; ".join(each.reason for each in rejected[:MOST_REASONS])
        raise ControlFailed(
            f"None of {len(rejected)} restore points can be trusted: {reasons}",
            "Do not restore from them. Take a new backup, drill it, raise an incident.",
        )
    rule = run.parameters.get("choose", "policy")
    chosen = pick(
        points,
        drilled_points(run.state, database),
        rule if rule != "policy" else run.pack.backup.drill.choose,
    )
    source = Source(offsite.store, chosen.manifest, run.services.drill_key())
    require_drill_server(source, server)
    for each in rejected:
        findings.find(
            "drill.untrusted",
            Outcome.FAIL,
            _("Restore point {key} is refused: {reason}", key=each.key, reason=each.reason),
            STOP,
        )
    latest = max(point.manifest.taken_at for point in points)
    return Choice(restore_point=chosen.id, of=len(points), latest_taken_at=latest)


def pick(points: Sequence[RestorePoint], drilled: Collection[str], rule: str) -> RestorePoint:
    """Return the latest restore point, or a random one that was never drilled.

    If all were drilled, ``undrilled`` picks the latest.

    Raises:
        ControlFailed: there is none.
    """
    if not points:
        raise ControlFailed("There is no restore point to drill.", "Run backup_offsite first.")
    latest = max(points, key=lambda point: (point.manifest.taken_at, point.id))
    if rule == "latest":
        return latest
    fresh = [point for point in points if point.id not in drilled]
    return SystemRandom().choice(fresh) if fresh else latest


def drilled_points(state: Engine, database: str) -> set[str]:
    """Return the ids of restore points that a drill has restored successfully."""
    query = select(drill_table.c.restore_point).where(
        drill_table.c.database == database, drill_table.c.outcome != Outcome.FAIL
    )
    with state.connect() as conn:
        return set(conn.scalars(query))


def require_drill_server(source: Source, server: DatabaseAddress) -> None:
    """Refuse a drill server that lacks a feature of the database, before the dump is fetched.

    The drill checks a restore point of an earlier version, whose head cannot be read alone, and a
    restore point that is refused.

    Raises:
        UsageError: the server lacks features; the message names all of them.
        ServiceError: server or store cannot be reached.
    """
    if source.manifest.head is None:
        return
    try:
        _head, entries = source.head()
    except Refused:
        return
    require_needs(entries, server, is_target=False)


CHOOSE = Step(
    name="choose",
    title=_("Choosing a restore point of {part}", part=""),
    clause=CLAUSE,
    work=choose,
    result=Choice,
)


@contextmanager
def chosen_source(run: RunContext[None], database: str) -> Iterator[Source]:
    """Open the restore point that this run chose.

    Raises:
        PointRemoved: a run removed it meanwhile, so that the block failed.
    """
    offsite, point = offsite_of(run.services), run.require(CHOOSE, database).restore_point
    work = work_reader(run.state, database, offsite.store)
    with naming_removals(offsite.store, database, point, work):
        manifest = manifests.load(offsite.store, database, point, offsite.trusted).manifest
        yield Source(offsite.store, manifest, run.services.drill_key())


@dataclass(frozen=True)
class DrillTarget:
    """The target of a drill.

    Attributes:
        server: for the scratch database.
        schedule: the parts of retention.yaml for the replay of erasures.
        jobs: processes that load at the same time.
    """

    server: DatabaseAddress
    schedule: Schedule = field(default_factory=Schedule)
    jobs: int = 2


def drill_target(services: Workplace, database: MappedDatabase) -> DrillTarget:
    """Return where drills restore a mapped database."""
    schedule = schedule_of(database, services.pack.retention_of(database.name))
    return DrillTarget(services.database("drill_db"), schedule)


class RestoreDrill(PointResult):
    """The comparison of a restored copy with its original.

    All but the restore point is None if the copy could not be loaded.

    Attributes:
        dump_checked_by: how the stored object was recognised, by ``version`` or ``digest``.
        manifest_sha256: hex digest of the manifest.
        taken_at: when the backup was taken.
        tables: that were restored.
        rows: that were restored.
        compared: tables whose content was compared.
        reordered: tables with the same rows in another order.
        definitions: differences of the schema.
        left_out: kinds of objects that are not restored.
        foreign_keys: that were checked row by row.
        newest: moment of the newest record, "none" without a record; None if the data map names no
            clock column.
        erasures: entries of the erasure ledger.
        replayed: records that were erased again.
        remasked: records that were masked again.
        remaining: erased or masked records that are present afterwards.
        large_objects_deleted: to which only replayed records referred.
        views_refreshed: materialized views.
        holding: relation -> rows with keys of erased records.
        skipped: collections whose table the copy does not have.
        not_looked_for: entries of the erasure ledger that name no record of the copy.
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
    """Restore into a scratch database, compare, replay erasures, drop it.

    Raises:
        PointRemoved: a run removed the restore point meanwhile.
        UsageError, Refused, ServiceError: see `restore_and_compare`.
    """
    database = run.database(findings.part)
    choice = run.require(CHOOSE, database.name)
    try:
        with exclusive(run.state, f"drill:{database.name}", f"a drill of {database.name}"):
            run.services.require_complete_registers(ERASURES)
            with chosen_source(run, database.name) as source:
                target, latest = drill_target(run.services, database), choice.latest_taken_at
                result = restore_and_compare(run, findings, source, target, latest)
    except PointRemoved:
        raise  # no result for the restore point
    except ParcelSealError:  # the trend also has failed drills
        remember(run, database.name, choice.restore_point, Outcome.FAIL)
        raise
    outcome = findings.record(result).outcome
    remember(run, database.name, choice.restore_point, outcome, findings.metrics)
    return result


def restore_and_compare(
    run: RunContext[None],
    findings: StepFindings,
    source: Source,
    target: DrillTarget,
    latest_taken_at: datetime,
    progress: Callable[[str], None] | None = None,
) -> RestoreDrill:
    """Restore into a scratch database, compare everything, replay the erasures, drop it.

    Left-overs of killed drills are dropped first. RTO ends when the copy is loaded and its erasures
    are replayed; the comparison is not part of it. RPO is the age of the newest restore point, also
    if another restore point is drilled.

    Args:
        run: the run.
        findings: of the step; its part is the database.
        source: the restore point.
        target: where it is restored.
        latest_taken_at: moment of the newest restore point.
        progress: is called with the name of each stage.

    Raises:
        UsageError: the server is too old or lacks extensions or collations, or the restore did not
            work.
        Refused, ServiceError: the restore did not work; the scratch database is gone.
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
                    _("{rows} rows of foreign key {name} point nowhere.", rows=rows, name=name),
                    STOP,
                )
            # In the original's timezone, and only columns that it had when it was backed up.
            connection.execute("SELECT set_config('TimeZone', %s, true)", [manifest.timezone])
            had = {(clock.collection, clock.field) for clock in manifest.newest}
            columns = clock_columns(database)
            clocks = [each for each in columns if (each.collection, each.field) in had]
            newest = newest_records(connection, clocks)
            judge_locale(findings, locale, DatabaseLocale.of_database(connection))
            connection.rollback()
            moments = [record.moment for record in newest]
            fresh = judge_newest(findings, moments, manifest, run.pack.backup.drill)
            replay_begun = clock.now()
            replayed = replay(
                connection,
                database.name,
                places_of(database),
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
        holding=dict(replayed.holding),
        skipped=replayed.skipped,
        not_looked_for=replayed.not_looked_for,
    )


def remember(
    run: RunContext[None],
    database: str,
    point: str,
    outcome: Outcome,
    metrics: Sequence[Metric] = (),
) -> None:
    """Enter a drill in the state database, for its trend and for the choice of the next one."""
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
    """The removal of what killed drills left.

    Attributes:
        databases: names of the scratch databases that were dropped.
    """

    databases: list[str]


def drop_scratch(run: RunContext[None], findings: StepFindings) -> DroppedScratch:
    """Drop the scratch databases that killed drills left; a drill that ends drops its own.

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
