"""What every DAG shares: tags, default arguments, schedule in the pack's timezone."""

from __future__ import annotations

import os
from datetime import timedelta
from enum import StrEnum
from typing import Any

from airflow.sdk import CronTriggerTimetable

from include.workplace import Workplace


class Tag(StrEnum):
    """The closed set of DAG tags; a test refuses any other."""

    BACKUP = "backup"
    RESTORE = "restore"
    CLAUSE_4_2 = "clause 4.2"
    DAILY = "daily"
    WEEKLY = "weekly"


OWNER_IT = "information-management"

DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER_IT,
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def policy_timezone() -> str:
    """Return the pack's timezone; a bad pack is a DAG import error that names every fault."""
    return Workplace.from_environment(os.environ).pack.calendar.timezone


def cron(expression: str) -> CronTriggerTimetable:
    """Return a cron schedule in the pack's timezone.

    Without a start date the first run is at the next such time, not at once for the last one.
    """
    return CronTriggerTimetable(expression, timezone=policy_timezone())
