"""Airflow assets of a workflow: outlets of the task that seals, and their events."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import Asset, AssetAlias

from include.evidence.shelf import SealedRun
from include.orchestration.unforeseen import value_free
from include.workflow.assets import SEALED_BUNDLE, asset_uri, events_of
from include.workflow.declaration import AnyWorkflow

log = logging.getLogger(__name__)
MOST_EVENTS = 500
"""Of a run. Airflow registers them one by one while the task waits: 12 to 30 ms each on a busy
machine, and after half a minute Airflow takes the task for failed."""


def outlets_of(workflow: AnyWorkflow) -> list[AssetAlias]:
    """Return an alias for each kind of assets that a workflow produces.

    Airflow raises an event of each asset that is an outlet whenever the task succeeds, and refuses
    to start the task if another DAG declares an asset of that name differently. An alias has
    events only of what a run produced, and never keeps a run from being sealed.
    """
    kinds = [SEALED_BUNDLE, *(asset.kind for asset in workflow.produces)]
    return [AssetAlias(asset_uri(kind)) for kind in kinds]


def raise_events(events: Any, workflow: AnyWorkflow, sealed: SealedRun, *, is_drill: bool) -> None:
    """Raise an event of each asset that a sealed run produced, once the running task succeeded.

    Args:
        events: ``outlet_events`` of the task's context.
        workflow: its declaration.
        sealed: the run, as its bundle has it.
        is_drill: whether the run was a drill.
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
        log.error(  # noqa: TRY400 - a traceback ends with words that may quote a value
            "The assets of this run have no further events:\n%s", value_free(error)
        )
