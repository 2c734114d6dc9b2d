"""The task that sends queued notifications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import get_current_context

from include.drill_sandbox.channel import sandbox_office
from include.drill_sandbox.workplace import SandboxedWorkplace
from include.evidence.model import Finding, Outcome, StepRecord
from include.messages import _
from include.notify import sending
from include.notify.asking import Confirm, LookUp
from include.notify.delivery import Office
from include.notify.office import office_of
from include.notify.sending import STEP_SEND
from include.orchestration.run import step
from include.registry import notification_kinds
from include.services.errors import ServiceError
from include.workflow.declaration import AnyWorkflow, NotificationKind
from include.workplace import Workplace


def office(place: Workplace) -> Office:
    """Return the means to send notifications of all kinds; in a drill nothing leaves."""
    confirm: dict[str, Confirm] = {}
    addresses: dict[str, LookUp] = {}
    for name, (workflow, kind) in notification_kinds().items():
        confirm[name] = partial(_still_due, place, workflow, kind)
        if kind.addresses is not None:
            addresses[name] = partial(_addresses, place, workflow, kind)
    made = office_of(place.pack, place.state, place.clock, place.connection, confirm, addresses)
    return sandbox_office(made) if isinstance(place, SandboxedWorkplace) else made


def _still_due(
    place: Workplace, workflow: AnyWorkflow, kind: NotificationKind[Any], keys: Sequence[str]
) -> set[str]:
    run = workflow.context(place)
    return set() if run is None else kind.still_due(run, keys)


def _addresses(
    place: Workplace, workflow: AnyWorkflow, kind: NotificationKind[Any], keys: Sequence[str]
) -> Mapping[str, str]:
    run = workflow.context(place)
    return {} if run is None or kind.addresses is None else kind.addresses(run, keys)


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
