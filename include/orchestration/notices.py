"""The task with which a workflow tells people things: queued before, sent here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import get_current_context

from include.evidence.model import Finding, Outcome, StepRecord
from include.messages import _
from include.notify import sending
from include.notify.asking import Confirm, LookUp
from include.notify.delivery import Office
from include.notify.office import office_of
from include.notify.sandbox import sandbox_office
from include.notify.sending import STEP_SEND
from include.orchestration.run import step
from include.orchestration.sandbox import SandboxedWorkplace
from include.services.errors import ServiceError
from include.workplace import Workplace

__all__ = ["ADDRESSED", "KINDS", "STEP_SEND", "addressing", "confirming", "office", "send"]


def confirming(kind: str) -> Callable[[Workplace], Confirm]:
    """Return who says which queued notices of a kind are still wanted.

    Any workflow may send the notices of any other, so all of them stand here; they are imported
    when they are asked for, since they import this module.

    Raises:
        KeyError: nobody says it of this kind.
    """
    from include.incident.names import ALERT, INDIVIDUAL
    from include.orchestration import audit_conclusion, incident_notices, partners, training
    from include.partners.names import CONTACT
    from include.partners.names import REMINDER as PARTNERS
    from include.sampling.names import NOTICE as FINDING
    from include.training.names import COPY, DEPARTMENT
    from include.training.names import REMINDER as TRAINING

    found: dict[str, Callable[[Workplace], Confirm]] = {
        FINDING: audit_conclusion.confirming,
        ALERT: incident_notices.confirming_alerts,
        INDIVIDUAL: incident_notices.confirming_letters,
        PARTNERS: partners.confirming,
        CONTACT: partners.confirming,
        **{one: training.confirming(one) for one in (TRAINING, COPY, DEPARTMENT)},
    }
    return found[kind]


KINDS = (
    "audit.finding",
    "incident.alert",
    "incident.individual",
    "partners.reminder",
    "partners.contact",
    "training.reminder",
    "training.copy",
    "training.department",
)
"""Every kind of notice; a test holds them against the names that workflows queue."""


def addressing(kind: str) -> Callable[[Workplace], LookUp]:
    """Return who says where letters of a kind go, whose addresses are looked up.

    Raises:
        KeyError: nobody says it of this kind.
    """
    from include.incident.names import INDIVIDUAL
    from include.orchestration import incident_notices

    found: dict[str, Callable[[Workplace], LookUp]] = {INDIVIDUAL: incident_notices.addressing}
    return found[kind]


ADDRESSED: tuple[str, ...] = ("incident.individual",)
"""Every kind of notice whose address is looked up when it is sent."""


def office(place: Workplace) -> Office:
    """Return what messages are sent with; in a drill nothing that leaves."""
    confirm = {kind: partial(_asked, place, kind) for kind in KINDS}
    addresses = {kind: partial(_looked_up, place, kind) for kind in ADDRESSED}
    made = office_of(place.pack, place.state, place.clock, place.connection, confirm, addresses)
    return sandbox_office(made) if isinstance(place, SandboxedWorkplace) else made


def _asked(place: Workplace, kind: str, keys: Sequence[str]) -> set[str]:
    return confirming(kind)(place)(keys)


def _looked_up(place: Workplace, kind: str, keys: Sequence[str]) -> Mapping[str, str]:
    return addressing(kind)(place)(keys)


def send(clause: str, make: Callable[[], Workplace] | None = None) -> dict[str, Any]:
    """Send what is due, and keep what came of it.

    Where a server is down or puts messages off, all tries but the last fail, so that Airflow
    repeats the task after its pause; the last one leaves the record, and the run goes on: nothing
    is lost, and its report says what waits.

    Args:
        clause: of the policy that findings name.
        make: makes the workplace, see `step`.
    """
    context = get_current_context()
    last = context["ti"].try_number > context["ti"].max_tries
    began = context["dag_run"].start_date

    def work(place: Workplace) -> StepRecord:
        done = sending.send(office(place), began or place.clock.now(), clause)
        if done.again and not last:
            raise ServiceError(done.again, "The task is repeated; nothing is lost meanwhile.")
        return _on_this_machine(done.record, clause) if place.mail_is_caught() else done.record

    return step(STEP_SEND, "", _("The sending"), work, clause, make)


def _on_this_machine(record: StepRecord, clause: str) -> StepRecord:
    """Say that mail was written to files: a forgotten connection must not look like success."""
    count = record.data.get("messages", 0)
    if not count:
        return record
    finding = Finding(
        code="notices.local_only",
        severity=Outcome.ATTENTION,
        subject="mail",
        message=_(
            "The connection mail leads to no mail server of yours: {count} messages were written "
            "to files, and nobody got them.",
            count=count,
        ),
        action=_("Point the connection mail at your mail server: docs/connections.md."),
        clause=clause,
    )
    return record.model_copy(
        update={
            "findings": [*record.findings, finding],
            "outcome": Outcome.worst([record.outcome, Outcome.ATTENTION]),
        }
    )
