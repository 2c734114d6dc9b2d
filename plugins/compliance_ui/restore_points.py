"""The page of restore points: the times to which each database can be restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.backup import drill_proofs
from include.backup.drill_proofs import Proof
from include.backup.listing import listed_points
from include.backup.manifest import Rejected, RestorePoint
from include.backup.operations import operations_reader
from include.backup.point_folder import HiddenObject
from include.evidence.model import Outcome
from include.holds.registry import restore_points_on_hold
from include.orchestration.access.permissions import Page
from include.policy.datamap import MappedDatabase
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import LedgerState, PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page

router = APIRouter()

DAG = "backup_offsite"
CACHED_FOR = 300.0  # seconds; reading a list takes three requests to the store for each point
MAX_POINTS = 100  # restore points of a database on the page


@dataclass(frozen=True)
class DatabasePoints:
    """The restore points of a database.

    Attributes:
        database: the database in the data map.
        points: restore points with valid manifests, newest first.
        rejected: folders that look like restore points but must not be used, each with the reason.
        read_at: time at which the restore points were listed in the off-site store.
        enforces_locks: whether the off-site store itself prevents changes of locked files. If the
            store is a directory, every user with write access can change files before their lock
            ends.
    """

    database: MappedDatabase
    points: Sequence[RestorePoint]
    rejected: Sequence[Rejected]
    read_at: datetime
    enforces_locks: bool

    @property
    def hidden(self) -> list[HiddenObject]:
        """The files of restore points that were deleted or overwritten in a versioned store.

        The store still has the earlier version of each of these files.
        """
        return [hidden for point in self.points for hidden in point.hidden]

    @property
    def outcome(self) -> Outcome:
        """The outcome of the restore points, without the results of restore drills.

        The outcome is "failed" if the database has no restore point, if a restore point was
        rejected, or if a file of a restore point was deleted or overwritten. It is "needs
        attention" if the newest restore point is older than the RPO.
        """
        newest = max((point.manifest.taken_at for point in self.points), default=None)
        if newest is None or self.rejected or self.hidden:
            return Outcome.FAIL
        exceeds_rpo = self.read_at - newest > self.database.rpo
        return Outcome.ATTENTION if exceeds_rpo else Outcome.PASS


def outcome_of(points: DatabasePoints, proof: Proof, ledger: LedgerState) -> Outcome:
    """Return the outcome of a database: the worse of two outcomes.

    These are the outcome of its restore points and the outcome of its restore drills. If rows of
    the evidence ledger are missing or changed, the result is "failed", because the row of a failed
    drill may be among those rows.

    Args:
        points: restore points of the database.
        proof: evidence from the restore drills of the database.
        ledger: completeness of the evidence ledger.
    """
    if ledger.broken:
        return Outcome.FAIL
    return Outcome.worst([points.outcome, proof.outcome])


@router.get("/restore-points")
def restore_points(
    request: Request, visitor: Annotated[Visitor, Depends(visitor_of(Page.RESTORE_POINTS))]
) -> Response:
    """Show the restore points of every mapped database, with the results of their restore drills.

    Every visitor of this page sees the date and outcome of the drills, because they show whether a
    restore point is reliable. The link to the evidence bundle of a drill requires permission to
    read the DAG of restore drills.
    """
    visitor.require(DAG)
    services = page_services()
    pack, now = services.pack, services.now()
    databases = services.read_cached("offsite_store", CACHED_FOR, lambda: _read_points(services))
    with services.read_connection() as conn:
        on_hold = {
            listing.database.name: restore_points_on_hold(
                conn, listing.database.name, [point.id for point in listing.points]
            )
            for listing in databases
        }
        ledger = services.ledger(conn, services.bundle_reader.pruned_up_to(conn))
        drilled = drill_proofs.proofs(
            conn,
            services.bundle_reader,
            [listing.database.name for listing in databases],
            pack.controls_of(drill_proofs.WORKFLOW),
            now,
            pack.calendar.zone,
        )
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.RESTORE_POINTS,
        "restore_points.html.j2",
        databases=databases,
        outcomes={
            listing.database.name: outcome_of(listing, drilled[listing.database.name], ledger)
            for listing in databases
        },
        drilled=drilled,
        ledger=ledger,
        drills=drill_proofs.MAX_BUNDLES,
        opens_drills=Page.EVIDENCE in visitor.pages and visitor.reads(drill_proofs.WORKFLOW),
        held=on_hold,
        most=MAX_POINTS,
        read_at=min((listing.read_at for listing in databases), default=now),
        expires=timedelta(days=pack.backup.expire_days),
    )


def _read_points(services: PageServices) -> list[DatabasePoints]:
    store, pack = services.store("offsite_store"), services.pack
    listings = []
    for name, database in sorted(pack.databases.items()):
        read_operations = operations_reader(services.reader, name, store)
        points, rejected = listed_points(
            store, name, services.core.trusted_for_manifests, read_operations
        )
        enforces_locks = store.kind == "s3"
        listings.append(
            DatabasePoints(database, points[::-1], rejected, services.now(), enforces_locks)
        )
    return listings
