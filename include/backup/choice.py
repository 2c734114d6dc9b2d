"""The step of `drill_restore` that chooses a restore point."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from random import SystemRandom

from sqlalchemy import Engine, select

from include.backup import manifest as manifests
from include.backup.drill_findings import STOP
from include.backup.listing import naming_removals, work_reader
from include.backup.manifest import RestorePoint
from include.backup.offsite import listed, offsite_of
from include.backup.preflight import CLAUSE
from include.backup.proved import PointResult
from include.backup.scratch import drop_left_over
from include.backup.server_needs import require_needs
from include.backup.source import Source
from include.encryption.crypto import Refused
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed
from include.state.tables import drill as drill_table
from include.workflow.run_context import RunContext
from include.workflow.step import Step

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
        raise ControlFailed(
            "There is no restore point to drill.", "Run backup_offsite first and see that it holds."
        )
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
