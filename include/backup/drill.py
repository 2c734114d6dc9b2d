"""The steps of `drill_restore`: choose, prove that damage is refused, restore, compare, replay."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from random import SystemRandom

import psycopg
from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from include.backup.check_limits import CheckRefusesRows
from include.backup.compare import check_foreign_keys, compare
from include.backup.database_locale import DatabaseLocale
from include.backup.drill_findings import (
    STOP,
    judge_check,
    judge_locale,
    judge_newest,
    judge_schema,
    judge_tables,
    judge_targets,
)
from include.backup.manifest import Rejected, RestorePoint
from include.backup.offsite import clock_columns
from include.backup.preflight import CLAUSE
from include.backup.quiet_sessions import without_event_triggers
from include.backup.refusals import prove_refusals
from include.backup.restore import restore
from include.backup.row_security import policies_lifted
from include.backup.scratch import drop_left_over, scratch
from include.backup.server_needs import require_needs
from include.backup.snapshot import newest_records
from include.backup.source import Source
from include.backup.target_version import require_dumpable, require_fitting_target
from include.encryption.crypto import Refused
from include.erasure.ledger import ErasureKeys
from include.erasure.places import places_of
from include.erasure.replay import Replay, Schedule, holding_text, replay, schedule_of
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.policy.datamap import MappedDatabase
from include.policy.rules import Drill as DrillRules
from include.services.clock import Clock
from include.services.database import DatabaseAddress, connected
from include.services.errors import ControlFailed
from include.state.tables import drill as drill_table
from include.workplace import Workplace

ERASURE_CLAUSE = "5.3"  # delete promptly after use: a restore must not undo it


def choose(points: Sequence[RestorePoint], drilled: Collection[str], rule: str) -> RestorePoint:
    """Pick the restore point to drill: the latest, or a random one that was never drilled.

    When all were drilled, ``undrilled`` takes the latest.

    Raises:
        ControlFailed: there is none.
    """
    if not points:
        raise ControlFailed(
            "There is no restore point to drill.", "Run backup_offsite first and see that it holds."
        )
    latest = max(points, key=lambda point: (point.manifest.taken_at, point.id))
    if rule == "latest":
        return latest
    fresh = [point for point in points if point.id not in drilled]
    return SystemRandom().choice(fresh) if fresh else latest


def chosen(
    database: str,
    point: RestorePoint,
    points: Sequence[RestorePoint],
    rejected: Sequence[Rejected],
) -> StepRecord:
    """Record the choice, and restore points that cannot be trusted."""
    seen = StepFindings("choose", CLAUSE, database)
    for one in rejected:
        seen.find(
            "drill.untrusted",
            Outcome.FAIL,
            _("Restore point {key} is refused: {reason}", key=one.key, reason=one.reason),
            STOP,
        )
    latest = max(one.manifest.taken_at for one in points)
    return seen.record(
        {
            "restore_point": point.id,
            "of": len(points),
            "latest_taken_at": latest.isoformat(),
        },
    )


def drilled_points(state: Engine, database: str) -> set[str]:
    """Return the ids of restore points that a drill has restored successfully."""
    with state.connect() as conn:
        return set(
            conn.scalars(
                select(drill_table.c.restore_point).where(
                    drill_table.c.database == database,
                    drill_table.c.outcome != Outcome.FAIL,
                )
            )
        )


def refusals(source: Source, clock: Clock) -> StepRecord:
    """Prove first that a damaged copy or a wrong key would be refused."""
    seen = StepFindings("refusals", CLAUSE, source.manifest.database)
    proofs = prove_refusals(source, clock.now())
    names = {
        "flipped_byte": _("a copy with one flipped byte"),
        "truncated": _("a truncated copy"),
        "wrong_key": _("a copy opened with a wrong key"),
    }
    for proof in proofs:
        if not proof.refused:
            message = _("The restore accepted {what}.", what=names[proof.variant])
            seen.find("drill.accepted", Outcome.FAIL, message, STOP)
    seen.measure("drill.refusals", sum(proof.refused for proof in proofs), "1", len(proofs))
    return seen.record(
        {
            "restore_point": source.manifest.id,
            "refused": [proof.variant for proof in proofs if proof.refused],
        },
    )


def require_drill_server(source: Source, server: DatabaseAddress) -> None:
    """Refuse a drill server that lacks a feature of the database, before the dump is fetched.

    `drill` checks a restore point of an earlier version, whose head cannot be read alone, and a
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


@dataclass(frozen=True)
class DrillPlace:
    """Where a drill restores, and what it must not touch.

    Attributes:
        schedules: of retention.yaml, by database.
    """

    server: DatabaseAddress
    live_names: Collection[str]
    state: Engine
    erasure_keys: ErasureKeys
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    jobs: int = 2


def drill_place_of(services: Workplace) -> DrillPlace:
    """Return the server of drills, with the databases that a drill must not touch."""
    pack = services.pack
    live = {services.database(mapped.connection).name for mapped in pack.databases.values()}
    schedules = {
        name: schedule_of(mapped, pack.retention_of(name))
        for name, mapped in pack.databases.items()
        if not mapped.is_faulty
    }
    server = services.database("drill_db")
    return DrillPlace(server, live, services.state, services.erasure_keys, schedules)


def drill(
    database: MappedDatabase,
    source: Source,
    place: DrillPlace,
    rules: DrillRules,
    *,
    latest_taken_at: datetime,
    dag_id: str,
    run_id: str,
    clock: Clock,
    progress: Callable[[str], None] | None = None,
) -> StepRecord:
    """Restore into a scratch database, compare everything, replay the erasures, drop it.

    What killed drills left is dropped first. RTO counts until the copy is loaded and its erasures
    are replayed; comparing comes on top. RPO is the age of the newest restore point, whichever was
    drilled.

    Raises:
        UsageError: the server is too old or lacks extensions or collations, or the restore did not
            work.
        Refused, ServiceError: the restore did not work; the scratch database is gone.
    """
    seen = StepFindings("drill", CLAUSE, database.name)
    manifest = source.manifest
    require_fitting_target(
        manifest,
        place.server,
        "Point the connection drill_db to a server that is not older than the original.",
    )
    require_dumpable(place.server)  # the copy is read back
    _head, entries = source.head()
    require_needs(entries, place.server, is_target=False)
    locale = DatabaseLocale.of_archive(entries)
    drop_left_over(place.server, place.state, clock)
    begun = clock.now()
    with scratch(
        place.server,
        place.live_names,
        place.state,
        dag_id=dag_id,
        run_id=run_id,
        clock=clock,
        locale=locale,
    ) as scratch_copy:
        copy = without_event_triggers(scratch_copy)
        try:
            restored = restore(source, copy, jobs=place.jobs, progress=progress)
        except CheckRefusesRows as refused:
            judge_check(seen, refused)
            return seen.record({"restore_point": manifest.id})
        usable_after = (clock.now() - begun).total_seconds()
        comparison = compare(source, copy)
        judge_tables(seen, (*restored.differences, *comparison.missing), comparison.different)
        judge_schema(seen, comparison, manifest)
        with policies_lifted(copy), connected(copy) as connection:
            keys = check_foreign_keys(connection)
            for name, rows in keys.broken.items():
                seen.find(
                    "drill.foreign_key",
                    Outcome.FAIL,
                    _("{rows} rows of foreign key {name} point nowhere.", rows=rows, name=name),
                    STOP,
                )
            # In the original's timezone, and only columns that it had when it was backed up.
            connection.execute("SELECT set_config('TimeZone', %s, true)", [manifest.timezone])
            had = {(one.collection, one.field) for one in manifest.newest}
            clocks = [one for one in clock_columns(database) if (one.collection, one.field) in had]
            newest = newest_records(connection, clocks)
            judge_locale(seen, locale, DatabaseLocale.of_database(connection))
            connection.rollback()
            fresh = judge_newest(seen, [one.moment for one in newest], manifest, rules)
            replay_begun = clock.now()
            replayed = replay_erasures(place, database, connection, clock.now())
            usable_after += (clock.now() - replay_begun).total_seconds()
    if replayed.remaining:
        seen.find(
            "drill.erased_present",
            Outcome.FAIL,
            _(
                "{count} erased or masked records are back in the restored copy.",
                count=replayed.remaining,
            ),
            STOP,
            clause=ERASURE_CLAUSE,
        )
    if replayed.holding:
        seen.find(
            "drill.erased_key_present",
            Outcome.FAIL,
            _(
                "Keys of erased records are still in the restored copy: {relations}.",
                relations=holding_text(replayed),
            ),
            _(
                "Add a retention rule for each table that keeps copies of records, and check "
                "that retention erases there too. Until then, every restore brings erased "
                "records back."
            ),
            clause=ERASURE_CLAUSE,
        )
    if replayed.not_looked_for:
        seen.find(
            "drill.erased_not_looked_for",
            Outcome.FAIL,
            _(
                "{count} erased records could not be looked for: the copy has no table, or one "
                "with another primary key, for {names}.",
                count=replayed.not_looked_for,
                names=", ".join((*replayed.skipped, *replayed.other_keys)),
            ),
            _(
                "If the table was renamed or its key was changed, search a restored copy for them "
                "under the earlier name or key. If the table is younger than the restore point, "
                "drill a newer restore point."
            ),
            clause=ERASURE_CLAUSE,
        )
    judge_targets(seen, database, usable_after, begun - latest_taken_at)
    return seen.record(
        {
            "restore_point": manifest.id,
            "dump_checked_by": source.checked_by,
            "manifest_sha256": hashlib.sha256(manifest.as_bytes()).hexdigest(),
            "taken_at": manifest.taken_at.isoformat(),
            "tables": restored.tables,
            "rows": restored.rows,
            "compared": comparison.compared,
            "reordered": list(comparison.reordered),
            "definitions": asdict(comparison.definitions),
            "left_out": list(restored.left_out),
            "foreign_keys": keys.checked,
            "newest": fresh,
            "erasures": replayed.entries,
            "replayed": replayed.replayed,
            "remasked": replayed.remasked,
            "remaining": replayed.remaining,
            "large_objects_deleted": replayed.large_objects,
            "views_refreshed": replayed.refreshed,
            "holding": dict(replayed.holding),
            "skipped": list(replayed.skipped),
            "not_looked_for": replayed.not_looked_for,
        },
    )


def replay_erasures(
    place: DrillPlace, database: MappedDatabase, connection: psycopg.Connection, at: datetime
) -> Replay:
    """Replay the ledger of a database on a restored copy."""
    return replay(
        connection,
        database.name,
        places_of(database),
        place.state,
        place.erasure_keys,
        place.schedules.get(database.name, Schedule()),
        at,
    )


def broken_off(database: str, point: str) -> StepRecord:
    """Record a drill that ended with an error, so that the trend does not leave out the worst."""
    return StepRecord(
        step="drill", part=database, outcome=Outcome.FAIL, data={"restore_point": point}
    )


def remember(
    state: Engine, record: StepRecord, *, dag_id: str, run_id: str, drilled_at: datetime
) -> None:
    """Enter a drill in ``state``, for its trend and for the choice of the next one."""
    figures: Mapping[str, float | int | None] = {one.name: one.value for one in record.metrics}
    values = {
        "restore_point": record.data["restore_point"],
        "drilled_at": drilled_at,
        "outcome": record.outcome,
        "restore_seconds": figures.get("drill.rto_seconds"),
        "rpo_seconds": figures.get("drill.rpo_seconds"),
    }
    with state.begin() as conn:
        conn.execute(
            insert(drill_table)
            .values(dag_id=dag_id, run_id=run_id, database=record.part, **values)
            .on_conflict_do_update(constraint=drill_table.primary_key, set_=values)
        )
