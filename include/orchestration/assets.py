"""Airflow assets of a workflow: the outlets of the task `seal`, and the asset events of a run."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, AssetAlias

from include.evidence.bundle_reader import SealedRun
from include.orchestration.redacted_errors import redact_traceback
from include.workflow.assets import SEALED_BUNDLE, asset_uri, events_of
from include.workflow.declaration import AnyWorkflow

log = logging.getLogger(__name__)
MOST_EVENTS = 500
"""The most asset events of a run. Airflow registers each event while the task waits, in 12 to 30 ms
on a busy machine. After half a minute Airflow treats the task as failed."""


def outlets_of(workflow: AnyWorkflow) -> list[AssetAlias]:
    """Return an asset alias for each kind of asset that a workflow produces.

    Whenever a task succeeds, Airflow creates an event for each asset among the task's outlets, even
    if the run did not update the asset. Airflow also refuses to start the task if another DAG
    declares an asset with the same name differently. An asset alias avoids both: it has events only
    for the assets that a run really produced, and it never prevents the start of the task `seal`.
    """
    kinds = [SEALED_BUNDLE, *(asset.kind for asset in workflow.produces)]
    return [AssetAlias(asset_uri(kind)) for kind in kinds]


def raise_events(events: Any, workflow: AnyWorkflow, sealed: SealedRun, *, is_drill: bool) -> None:
    """Add an asset event for each asset that a sealed run produced, up to `MOST_EVENTS` events.

    Airflow stores the events if the task succeeds. If the function fails to add an event, it only
    logs the error and does not raise it, because the run is already sealed.

    Args:
        events: ``outlet_events`` of the task's context.
        workflow: declaration of the workflow.
        sealed: the run, as read from its sealed bundle.
        is_drill: whether the run was a drill, as each event states.
    """
    try:
        for number, (kind, event) in enumerate(events_of(workflow.produces, sealed)):
            if number == MOST_EVENTS:
                log.warning("Only %s assets of this run have an event.", MOST_EVENTS)
                return
            extra = {"outcome": str(event.outcome), "is_drill": is_drill, **event.details}
            uri = asset_uri(kind, event.name)
            events[AssetAlias(asset_uri(kind))].add(Asset(uri), extra=extra)
    except Exception as error:  # noqa: BLE001 - the run is sealed, and `gate` has to show its outcome
        log.error(  # noqa: TRY400 - a traceback ends with a message that may quote a value
            "The assets of this run have no further events:\n%s", redact_traceback(error)
        )
