"""Tasks of `backup_offsite` and `drill_restore`: services in, step records out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException

from include.backup import drill as drills
from include.backup import drill_report, offsite, offsite_report
from include.backup import manifest as manifests
from include.backup.listing import PointRemoved, naming_removals, work_reader
from include.backup.manifest import Manifest, RestorePoint
from include.backup.preflight import CLAUSE
from include.backup.scratch import drop_left_over
from include.backup.source import Source
from include.backup.unfinished import clear_unfinished
from include.evidence.model import StepRecord
from include.evidence.register_figures import ERASURES, HOLDS
from include.evidence.steps import keep_artifact, steps_of
from include.messages import _
from include.orchestration.run import confirm_open, run_key, seal_run, step
from include.reports.conclusion import Conclusion
from include.services.errors import ControlFailed, ParcelSealError
from include.state.locks import exclusive
from include.workplace import Workplace

MANIFEST_PREFIX = "manifest."
MOST_REASONS = 3  # of refused restore points, in one line


def preflight() -> None:
    """Check store, sites and keys; stop the run when one of them forbids a backup."""
    allowed: list[bool] = []

    def work(place: Workplace) -> StepRecord:
        pack = place.pack
        record = offsite.check(
            offsite.offsite_of(place),
            list(pack.databases.values()),
            pack.backup,
            place.clock,
            [name for name, one in pack.databases.items() if place.is_local(one.connection)],
            place.routes(),
        )
        allowed.append(record.data["may_dump"])
        return record

    step("preflight", "", _("The preflight"), work, CLAUSE)
    if not all(allowed):
        raise AirflowFailException("Nothing was dumped: see the findings in the run's report.")


def back_up(database: str) -> dict[str, Any]:
    """Dump, encrypt, store, verify and publish one database."""
    dag_id, run_id = run_key()

    def work(place: Workplace) -> StepRecord:
        mapped = place.pack.database(database)
        with exclusive(place.state, f"backup:{database}", f"a backup of {database}"):
            record, manifest = offsite.back_up(
                mapped,
                place.database(mapped.connection),
                offsite.offsite_of(place),
                place.pack.backup,
                place.state,
                dag_id=dag_id,
                run_id=run_id,
                clock=place.clock,
                again=get_current_context()["ti"].try_number > 1,
                require_holds=lambda: place.require_complete_registers(HOLDS),
                confirm=lambda: confirm_open(place),
            )
        with place.state.begin() as conn:
            name = f"{MANIFEST_PREFIX}{database}.json"
            keep_artifact(conn, dag_id, run_id, name, manifest.as_bytes())
        return record

    return step("backup", database, _("The backup of {database}", database=database), work, CLAUSE)


def prune(database: str) -> dict[str, Any]:
    """Remove restore points of one database that the pack's rules no longer keep."""
    dag_id, run_id = run_key()

    def work(place: Workplace) -> StepRecord:
        off = offsite.offsite_of(place)
        name, what = f"backup:{database}", f"a backup of {database}"
        with exclusive(place.state, name, what) as confirm_lock:

            def confirm() -> None:
                confirm_lock()
                confirm_open(place)

            points, _rejected = offsite.listed(off, place.state, database)
            offsite.require_plausible_clock(
                [one.manifest.taken_at for one in points], place.clock.now()
            )
            place.require_complete_registers(HOLDS)
            cleared = None
            if _recorded(place, "backup", database).get(offsite.LEFT_TO_PRUNING):
                cleared = clear_unfinished(
                    off.store, place.state, database, off.trusted, place.clock.now()
                )
            return offsite.prune_restore_points(
                database,
                off,
                place.pack.backup,
                place.state,
                zone=place.pack.calendar.zone,
                now=place.clock.now(),
                dag_id=dag_id,
                run_id=run_id,
                confirm=confirm,
                cleared=cleared,
            )

    title = _("Pruning old restore points of {database}", database=database)
    return step("prune", database, title, work, CLAUSE)


def seal_backup() -> dict[str, Any]:
    """Seal the evidence of a backup run."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        made = [
            Manifest.model_validate_json(content)
            for name, content in artifacts.items()
            if name.startswith(MANIFEST_PREFIX)
        ]
        asked = get_current_context()["params"].get("databases")
        return offsite_report.conclude(
            records,
            list(place.pack.databases.values()),
            {one.database: one for one in made},
            asked=asked or list(place.pack.databases),
        )

    return seal_run(conclude)


def choose(database: str, rule: str) -> dict[str, Any]:
    """Choose the restore point to drill, check the server, drop databases of killed drills."""

    def work(place: Workplace) -> StepRecord:
        off = offsite.offsite_of(place)
        drop_left_over(drills.drill_place_of(place).server, place.state, place.clock)
        points, rejected = offsite.listed(off, place.state, database)
        if rejected and not points:
            reasons = "; ".join(one.reason for one in rejected[:MOST_REASONS])
            raise ControlFailed(
                f"None of {len(rejected)} restore points can be trusted: {reasons}",
                "Do not restore from them. Take a new backup, drill it, raise an incident.",
            )
        chosen = drills.choose(
            points,
            drills.drilled_points(place.state, database),
            rule if rule != "policy" else place.pack.backup.drill.choose,
        )
        point = Source(off.store, chosen.manifest, place.drill_key())
        drills.require_drill_server(point, drills.drill_place_of(place).server)
        return drills.chosen(database, chosen, points, rejected)

    title = _("Choosing a restore point of {database}", database=database)
    return step("choose", database, title, work, CLAUSE) | {"database": database}


def prove_refusals(database: str) -> dict[str, Any]:
    """Prove that a damaged copy and a wrong key are refused."""

    def work(place: Workplace) -> StepRecord:
        with _naming_removals(place, database):
            return drills.refusals(_source(place, database), place.clock)

    title = _("The proof that damage to {database} is refused", database=database)
    return step("refusals", database, title, work, CLAUSE)


def drill(database: str) -> dict[str, Any]:
    """Restore into a scratch database, compare, replay erasures, drop it."""
    dag_id, run_id = run_key()

    def work(place: Workplace) -> StepRecord:
        data = _chosen(place, database).data

        def remember(record: StepRecord) -> None:
            drills.remember(
                place.state, record, dag_id=dag_id, run_id=run_id, drilled_at=place.clock.now()
            )

        try:
            with (
                exclusive(place.state, f"drill:{database}", f"a drill of {database}"),
                _naming_removals(place, database),
            ):
                place.require_complete_registers(ERASURES)
                record = drills.drill(
                    place.pack.database(database),
                    _source(place, database),
                    drills.drill_place_of(place),
                    place.pack.backup.drill,
                    latest_taken_at=datetime.fromisoformat(data["latest_taken_at"]),
                    dag_id=dag_id,
                    run_id=run_id,
                    clock=place.clock,
                )
        except PointRemoved:
            raise  # says nothing of the restore point
        except ParcelSealError:
            remember(drills.broken_off(database, data["restore_point"]))
            raise
        remember(record)
        return record

    title = _("The restore of {database}", database=database)
    return step("drill", database, title, work, CLAUSE)


def seal_drill() -> dict[str, Any]:
    """Seal the evidence of a drill."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        databases = list(place.pack.databases.values())
        history = {one.name: drill_report.past_drills(place.state, one.name) for one in databases}
        return drill_report.conclude(records, databases, history)

    return seal_run(conclude)


def _recorded(place: Workplace, name: str, database: str) -> Mapping[str, Any]:
    """Return what a step of this run recorded about a database; empty if it recorded nothing."""
    with place.state.connect() as conn:
        for record in steps_of(conn, *run_key()):
            if (record.step, record.part) == (name, database):
                return record.data
    return {}


def _chosen(place: Workplace, database: str) -> StepRecord:
    dag_id, run_id = run_key()
    with place.state.connect() as conn:
        for record in steps_of(conn, dag_id, run_id):
            if (record.step, record.part) == ("choose", database):
                return record
    raise AirflowFailException(f"No restore point of {database} was chosen in this run.")


def _naming_removals(place: Workplace, database: str) -> AbstractContextManager[None]:
    point = _chosen(place, database).data["restore_point"]
    store = place.store("offsite_store")
    return naming_removals(store, database, point, work_reader(place.state, database, store))


def _source(place: Workplace, database: str) -> Source:
    off = offsite.offsite_of(place)
    point: RestorePoint = manifests.load(
        off.store, database, _chosen(place, database).data["restore_point"], off.trusted
    )
    return Source(off.store, point.manifest, place.drill_key())
