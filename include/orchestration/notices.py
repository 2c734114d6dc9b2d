"""The task with which a workflow tells people things: queued before, sent here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from airflow.sdk import get_current_context

from include.evidence.model import StepRecord
from include.messages import _
from include.notify import sending
from include.notify.claims import Confirm
from include.notify.delivery import Office
from include.notify.office import office_of
from include.notify.sending import STEP_SEND
from include.orchestration.run import require_open, step
from include.services.errors import ServiceError
from include.workplace import Workplace

__all__ = ["CONFIRM", "STEP_SEND", "office", "send"]


def _of(module: str, function: str, *words: str) -> Callable[[Workplace], Confirm]:
    """Who confirms a kind, found when it is asked: workflows import this module, and it them."""

    def find(place: Workplace) -> Confirm:
        found = getattr(import_module(f"include.orchestration.{module}"), function)
        for word in words:
            found = found(word)
        confirm: Confirm = found(place)
        return confirm

    return find


CONFIRM: dict[str, Callable[[Workplace], Confirm]] = {
    "audit.finding": _of("audit_conclusion", "confirming"),
    "partners.reminder": _of("partners", "confirming"),
    "partners.contact": _of("partners", "confirming"),
    "training.reminder": _of("training", "confirming", "training.reminder"),
    "training.copy": _of("training", "confirming", "training.copy"),
    "training.department": _of("training", "confirming", "training.department"),
}
"""By kind of notice: who says which are still wanted. Any workflow may send those of any other."""


def office(place: Workplace) -> Office:
    """Return what messages are sent with."""
    confirm = {kind: partial(_asked, place, find) for kind, find in CONFIRM.items()}
    return office_of(place.pack, place.state, place.clock, place.connection, confirm)


def _asked(place: Workplace, find: Callable[[Workplace], Confirm], keys: Sequence[str]) -> set[str]:
    return find(place)(keys)


def send(clause: str) -> dict[str, Any]:
    """Send what is due, and keep what came of it.

    Where a server is down or puts messages off, all tries but the last fail, so that Airflow
    repeats the task after its pause; the last one leaves the record, and the run goes on: nothing
    is lost, and its report says what waits.

    Args:
        clause: of the policy that findings name.
    """
    context = get_current_context()
    last = context["ti"].try_number > context["ti"].max_tries
    began = context["dag_run"].start_date

    def work(place: Workplace) -> StepRecord:
        require_open(place)
        done = sending.send(office(place), began or place.clock.now(), clause)
        if done.again and not last:
            raise ServiceError(done.again, "The task is repeated; nothing is lost meanwhile.")
        return done.record

    return step(STEP_SEND, "", _("The sending"), work, clause)
