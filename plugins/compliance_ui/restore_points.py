"""Restore points: from which moments each database can be brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.backup import proved
from include.backup.listing import listed_points, work_reader
from include.backup.manifest import Rejected, RestorePoint
from include.backup.point_folder import HiddenObject
from include.backup.proved import Proof
from include.evidence.model import Outcome
from include.holds.registry import restore_points_held
from include.orchestration.access.permissions import Page
from include.policy.datamap import MappedDatabase
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import LedgerState, Services, services

router = APIRouter()

DAG = "backup_offsite"
READ_FOR = 300.0  # seconds for which a list is shown: reading it asks the store three times a point
MOST = 100  # restore points of a database on the page


@dataclass(frozen=True)
class Points:
    """The restore points of one database.

    Attributes:
        database: of the data map.
        points: with valid manifests, the newest first.
        rejected: what looks like one and must not be used.
        read_at: when the store was asked.
        locking: whether the store locks by itself: of a directory, whoever may write there can
            change any file, whatever ParcelSeal was told to keep.
    """

    database: MappedDatabase
    points: Sequence[RestorePoint]
    rejected: Sequence[Rejected]
    read_at: datetime
    locking: bool

    @property
    def hidden(self) -> list[HiddenObject]:
        """Return the objects of the points that somebody deleted or overwrote."""
        return [each for point in self.points for each in point.hidden]

    @property
    def outcome(self) -> Outcome:
        """Return whether a loss now is within the database's RPO, and nobody changed the store.

        By manifests and sizes alone: what a drill proved comes on top.
        """
        newest = max((one.manifest.taken_at for one in self.points), default=None)
        if newest is None or self.rejected or self.hidden:
            return Outcome.FAIL
        late = self.read_at - newest > self.database.rpo
        return Outcome.ATTENTION if late else Outcome.PASS


def outcome_of(points: Points, proof: Proof, ledger: LedgerState) -> Outcome:
    """The worse of what the store has and of what drills proved.

    A line of the ledger that was changed or is missing may be that of a drill that failed.
    """
    if ledger.broken:
        return Outcome.FAIL
    return Outcome.worst([points.outcome, proof.outcome])


@router.get("/restore-points")
def restore_points(
    request: Request, who: Annotated[Visitor, Depends(opening(Page.RESTORE_POINTS))]
) -> Response:
    """Show the restore points of every mapped database, and what drills proved of them.

    When a drill was, and whether it held, belongs to whether a restore point can be relied on, so
    every reader of restore points is told. The drill's bundle is for those who may read the drill.
    """
    who.require(DAG)
    here = services()
    pack, now = here.place.pack, here.now()
    found = here.of_store("offsite_store", READ_FOR, lambda: _read(here))
    with here.reading() as conn:
        held = {
            one.database.name: restore_points_held(
                conn, one.database.name, [point.id for point in one.points]
            )
            for one in found
        }
        ledger = here.ledger(conn, here.shelf.pruned_up_to(conn))
        drilled = proved.proofs(
            conn,
            here.shelf,
            [one.database.name for one in found],
            pack.controls_of(proved.WORKFLOW),
            now,
            pack.calendar.zone,
        )
    return show(
        request,
        here,
        who,
        Page.RESTORE_POINTS,
        "restore_points.html.j2",
        databases=found,
        outcomes={
            one.database.name: outcome_of(one, drilled[one.database.name], ledger) for one in found
        },
        drilled=drilled,
        ledger=ledger,
        drills=proved.LOOKED_AT,
        opens_drills=Page.EVIDENCE in who.pages and who.reads(proved.WORKFLOW),
        held=held,
        most=MOST,
        read_at=min((one.read_at for one in found), default=now),
        expires=timedelta(days=pack.backup.expire_days),
    )


def _read(here: Services) -> list[Points]:
    store, pack = here.store("offsite_store"), here.place.pack
    found = []
    for name, database in sorted(pack.databases.items()):
        work = work_reader(here.reader, name, store)
        points, rejected = listed_points(store, name, here.place.trusted_for_manifests, work)
        locking = store.kind == "s3"
        found.append(Points(database, points[::-1], rejected, here.now(), locking))
    return found
