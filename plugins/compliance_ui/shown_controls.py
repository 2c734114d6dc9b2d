"""The evidence of the controls that a visitor may read, on the day that a page or export shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from include.evidence import control_index
from include.evidence.checkpoint import newest_checkpoint
from include.evidence.control_evidence import ControlEvidence, PruneState, read_control_evidence
from plugins.compliance_ui.access import Visitor
from plugins.compliance_ui.page_services import LedgerState, PageServices
from plugins.compliance_ui.shown_day import ShownDay


@dataclass(frozen=True)
class ShownControls:
    """The evidence of controls on a day.

    Attributes:
        evidence: evidence of each control that the visitor may read.
        ledger: state of the evidence ledger, which is that of today.
        hidden: number of controls that the visitor may not read.
        known_since: control -> time of the first seal whose policy pack had the control.
    """

    evidence: list[ControlEvidence]
    ledger: LedgerState
    hidden: int
    known_since: Mapping[str, datetime]


def shown_controls(
    services: PageServices, conn: Connection, visitor: Visitor, shown: ShownDay
) -> ShownControls:
    """Read the evidence of the controls whose workflows a visitor may read.

    Args:
        services: services for the request.
        conn: connection to the state database.
        visitor: the visitor.
        shown: day that the page shows.
    """
    pack = services.pack
    dags = visitor.readable(control.workflow for control in pack.controls)
    controls = [control for control in pack.controls if control.workflow in dags]
    checkpoint = newest_checkpoint(conn, services.bundle_reader.keys)
    known_since = control_index.known_since(conn)
    ledger = services.ledger(conn, checkpoint.up_to_seq if checkpoint else 0)

    def read() -> list[ControlEvidence]:
        return read_control_evidence(
            conn,
            services.bundle_reader,
            controls,
            shown.moment,
            pack.calendar.zone,
            PruneState.at(checkpoint, shown.as_of),
            as_of=shown.as_of,
            known_since=known_since,
        )

    past = (shown.day, pack.sha256, dags, checkpoint, ledger.newest)
    evidence = services.cache.past(past, read) if shown.is_past else read()
    return ShownControls(evidence, ledger, len(pack.controls) - len(controls), known_since)
