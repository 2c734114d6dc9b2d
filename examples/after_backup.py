"""### After a backup.

An example of a DAG of your own. It runs whenever `backup_offsite` has sealed a run with a new
restore point of the database `courier`. More: docs/reference/assets.md.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, dag, task

RESTORE_POINT = Asset("x-parcelseal://restore-point/courier")


@dag(schedule=[RESTORE_POINT], catchup=False, doc_md=__doc__)
def after_backup() -> None:
    """List new restore points whose backup did not fail."""

    @task
    def list_restore_points(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return id and digest of each new restore point, and the bundle that proves it."""
        events = [event.extra for event in triggering_asset_events[RESTORE_POINT]]
        return [event for event in events if event["outcome"] != "fail"]

    list_restore_points()


after_backup()
