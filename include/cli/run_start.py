"""Refuse a run that cannot start: it cannot store evidence, or its configuration is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.registry import workflow
from include.services.connections import with_short_timeouts
from include.services.errors import ServiceError, UsageError
from include.workplace import Workplace

if TYPE_CHECKING:
    from include.orchestration.retrying import RetryTime


def require_services(
    place: Workplace, dag_id: str, parameters: Mapping[str, Any], retry_time: RetryTime
) -> None:
    """Try the services without which a run leaves no evidence, and the logins of its databases.

    Args:
        place: the workplace.
        dag_id: the workflow.
        parameters: of the run.
        retry_time: for services that are away.

    Raises:
        UsageError: the state database or the evidence store is wrongly configured, or every
            database of the workflow refuses the login.
        ServiceError: one of the services is still unavailable when the time for retries is used up.
    """
    hasty = replace(place, lookup=with_short_timeouts(place.lookup))
    retry_time.repeat("state_db", lambda: hasty.state)
    retry_time.repeat("evidence_store", lambda: _read(hasty))
    _ = hasty.signer
    refusals = []
    databases = list(_databases(hasty, dag_id, parameters))
    for conn_id in databases:
        try:
            hasty.database(conn_id).connect().close()
        except UsageError as error:
            refusals.append(error)
        except ServiceError:
            continue  # the run retries, and records the attempts in its evidence
    if refusals and len(refusals) == len(databases):
        raise refusals[0]


def _read(place: Workplace) -> None:
    try:
        next(iter(place.store("evidence_store").folders()), None)
    except ServiceError as error:
        if error.is_permanent:
            raise UsageError(error.message, error.action) from None
        raise


def _databases(place: Workplace, dag_id: str, parameters: Mapping[str, Any]) -> list[str]:
    """Return the connections of the mapped databases that a run reads."""
    if not workflow(dag_id).chooses_databases:
        return []
    chosen = parameters.get("databases") or list(place.pack.databases)
    mapped = [place.pack.databases[name] for name in chosen if name in place.pack.databases]
    return list(dict.fromkeys(database.connection for database in mapped))
