"""What every DAG shares: tags, default arguments, schedule in the pack's timezone."""

from __future__ import annotations

import os
from datetime import timedelta
from enum import StrEnum
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, TriggerRule

from include.composition import workplace_of
from include.orchestration.retrying import RetryPolicy
from include.policy import PolicyPack


class Tag(StrEnum):
    """The closed set of DAG tags; a test refuses any other."""

    BACKUP = "backup"
    RESTORE = "restore"
    QUALITY = "quality"
    INTAKE = "intake"
    RETENTION = "retention"
    AUDIT = "audit"
    TRAINING = "training"
    PARTNERS = "partners"
    INCIDENT = "incident"
    CLAUSE_4_1 = "clause 4.1"
    CLAUSE_4_2 = "clause 4.2"
    CLAUSE_4_3 = "clause 4.3"
    CLAUSE_4_4 = "clause 4.4"
    CLAUSE_5_1 = "clause 5.1"
    CLAUSE_5_2 = "clause 5.2"
    CLAUSE_5_3 = "clause 5.3"
    CLAUSE_6_1 = "clause 6.1"
    CLAUSE_6_2 = "clause 6.2"
    CLAUSE_6_3 = "clause 6.3"
    HUMAN = "asks people"
    DAILY = "daily"
    WEEKLY = "weekly"
    QUARTERLY = "quarterly"
    ON_DEMAND = "on demand"


class Queue(StrEnum):
    """Where a workflow's tasks wait for a worker; Celery's workers say which of them they serve.

    Backups and deletions have workers of their own, so that neither waits behind reports, nor lets
    them wait. `docker-compose.yaml` serves each.
    """

    DEFAULT = "default"  # of Airflow, for every workflow that names none
    BACKUP = "backup"
    RETENTION = "retention"


OWNER = "data_engineering"  # a role of the shipped roles.yaml; a DAG may name another

DEFAULT_ARGS: dict[str, Any] = {
    "owner": OWNER,
    "retries": 5,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RetryPolicy(),
}
"""Retries over 15 to 30 minutes: a service that is away for ten minutes fails no run of a night. A
permanent error fails its task at once."""

SEAL_ARGS: dict[str, Any] = {"trigger_rule": TriggerRule.ALL_DONE, "retries": 12}
"""Of the task that seals, whatever happened before. It waits more than an hour for the store: a run
that ended without a bundle is a hole that nobody can fill later."""

SEND_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=2),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}
"""Of tasks that send: the last try is made after what a killed one had in hand is free again."""


def policy() -> PolicyPack:
    """Return the policy pack; a bad one is a DAG import error that names every fault."""
    return workplace_of(os.environ).pack


def databases_param() -> Param:
    """Return the parameter that names databases: a choice of the mapped ones."""
    mapped = list(policy().databases)
    return Param(
        [],
        type=["null", "array"],
        items={"type": "string", "enum": mapped},
        examples=mapped,
        title="Databases",
        description="Names from the data map; empty means all of them.",
    )


def cron(expression: str) -> CronTriggerTimetable:
    """Return a cron schedule in the pack's timezone.

    A workflow that is new begins at the next such time, or at once when the last one is less than a
    tenth of the way to the next ago (Airflow's own rule).
    """
    return CronTriggerTimetable(expression, timezone=policy().calendar.timezone)
