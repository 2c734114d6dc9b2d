"""The task that sends queued notifications."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import get_current_context

from include.drill_sandbox.workplace import SandboxedWorkplace, sandbox_office
from include.evidence.model import StepRecord
from include.notify import sending
from include.notify.asking import Confirm, LookUp
from include.notify.delivery import Office
from include.notify.office import office_of
from include.notify.sending import SEND_TITLE, STEP_SEND
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
        since = began or place.clock.now()
        caught = place.mail_is_caught()
        done = sending.send(office(place), since, clause, mail_is_caught=caught)
        if done.again and not last:
            raise ServiceError(done.again, "The task is repeated; nothing is lost meanwhile.")
        return done.record

    return step(STEP_SEND, "", SEND_TITLE, work, clause, make)
