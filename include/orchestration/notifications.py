"""The task that sends the queued notifications of all workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow.sdk import get_current_context

from include.drill_sandbox.sandboxed_services import SandboxedServices, sandboxed_delivery
from include.evidence.model import StepRecord
from include.notify import sending
from include.notify.delivery import DeliveryConfig
from include.notify.delivery_config import delivery_config_of
from include.notify.sending import SEND_TITLE, STEP_SEND
from include.notify.workflow_answers import LookUpAddresses, RevealSecrets, StillDue
from include.orchestration.run import execute_step
from include.registry import notification_kinds
from include.service_container import Services
from include.services.errors import ServiceError
from include.workflow.declaration import AnyWorkflow, NotificationKind


def delivery_config(services: Services) -> DeliveryConfig:
    """Return the configuration for sending notifications of all kinds.

    In a drill, test channels replace mail and chat robots, so no message leaves ParcelSeal.
    """
    confirm: dict[str, StillDue] = {}
    addresses: dict[str, LookUpAddresses] = {}
    secrets: dict[str, RevealSecrets] = {}
    kinds = notification_kinds()
    for name, (workflow, kind) in kinds.items():
        confirm[name] = partial(_still_due, services, workflow, kind)
        if kind.addresses is not None:
            addresses[name] = partial(_addresses, services, workflow, kind)
        if kind.secrets is not None:
            secrets[name] = partial(_secrets, services, workflow, kind)
    config = delivery_config_of(
        services.pack,
        services.state,
        services.clock,
        services.connection,
        confirm,
        addresses,
        {name: kind.title for name, (_workflow, kind) in kinds.items()},
        secrets,
    )
    return sandboxed_delivery(config) if isinstance(services, SandboxedServices) else config


def _still_due(
    services: Services, workflow: AnyWorkflow, kind: NotificationKind[Any], keys: Sequence[str]
) -> set[str]:
    run = workflow.context(services)
    return set() if run is None else kind.still_due(run, keys)


def _addresses(
    services: Services, workflow: AnyWorkflow, kind: NotificationKind[Any], keys: Sequence[str]
) -> Mapping[str, str]:
    run = workflow.context(services)
    return {} if run is None or kind.addresses is None else kind.addresses(run, keys)


def _secrets(
    services: Services, workflow: AnyWorkflow, kind: NotificationKind[Any], keys: Sequence[str]
) -> Mapping[str, str]:
    run = workflow.context(services)
    return {} if run is None or kind.secrets is None else kind.secrets(run, keys)


def send(clause: str, make_services: Callable[[], Services] | None = None) -> dict[str, Any]:
    """Send the notifications that are due, and record the result.

    If a mail server is unavailable or defers messages, every attempt except the last fails. Airflow
    then retries the task after its retry delay. The last attempt records the result and lets the
    run continue: unsent messages stay queued, and the report of the run lists them.

    Args:
        clause: policy clause of the findings.
        make_services: makes the services of the task; by default `task_services`.
    """
    context = get_current_context()
    is_last_try = context["ti"].try_number > context["ti"].max_tries
    run_started_at = context["dag_run"].start_date

    def work(services: Services) -> StepRecord:
        since = run_started_at or services.clock.now()
        is_caught = services.mail_is_caught()
        result = sending.send(delivery_config(services), since, clause, mail_is_caught=is_caught)
        if result.retry_reason and not is_last_try:
            raise ServiceError(
                result.retry_reason, "The task is repeated; nothing is lost meanwhile."
            )
        return result.record

    return execute_step(STEP_SEND, "", SEND_TITLE, work, clause, make_services)
