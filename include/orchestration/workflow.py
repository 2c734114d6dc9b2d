"""What every DAG shares: tags, default arguments, schedule in the pack's timezone."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
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

# Cron in the pack's timezone needs no start date; Airflow asks for one, and with catchup=False no
# run is made for the past.
START = datetime.fromisoformat("2026-01-01T00:00:00+08:00")


def policy_timezone() -> str:
    """Return the pack's timezone; a bad pack is a DAG import error that names every fault."""
    return Workplace.from_environment(os.environ).pack.calendar.timezone


def cron(expression: str) -> CronTriggerTimetable:
    """Return a cron schedule in the pack's timezone."""
    return CronTriggerTimetable(expression, timezone=policy_timezone())
