"""Measure a part of `remind_training` in a separate process, for `benchmarks.reminders`.

``python -m benchmarks._reminders_once FILE`` reads the part as JSON from FILE and writes the result
there. The parts are the obligations, the handwritten query, the plan of a run, and its sending.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import _reminders_data as data
from include.notify.channels import MailChannel
from include.notify.delivery import DeliveryConfig, deliver
from include.notify.outbox import Run
from include.notify.rendering import Writer
from include.policy.rules import Calendar, NotificationRules, Role
from include.services.connections import ConnectionSpec
from include.services.mail import MailServer
from include.state.connect import engine
from include.training import notifications, obligations
from include.training.obligations import Due, Untrained
from include.training.rules import TRAINING, TrainingRules, thresholds_on
from include.training.sources import COLUMNS, open_sources
from include.training.training_status import COPY, DEPARTMENT, REMINDER
from include.training.workflow import PLAN
from include.workflow.run_context import RunContext
from tests.support.contexts import pack_of, run_context, step_record

OWNER = Role(
    id="human_resources",
    title={"en": "Human resources", "zh-CN": "人力资源部门"},
    mail=("hr@courier.example",),
)
CALENDAR = Calendar()
RULES = TrainingRules.model_validate(
    {
        **{name: {"database": "bench", "sql": f"SELECT * FROM {name}"} for name in COLUMNS},  # noqa: S608 - our own names
        "owner": OWNER.id,
    }
)
NOTIFICATION_RULES = NotificationRules()


class DayClock:
    """A clock that starts at ten o'clock on the benchmark's day."""

    source = "the benchmark's day"

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._start = datetime.combine(data.DAY, datetime.min.time(), CALENDAR.zone)

    def now(self) -> datetime:
        """Return the current time of this clock."""
        return self._start + timedelta(hours=10, seconds=time.monotonic() - self._begun)


def context_of(parameters: dict[str, Any]) -> RunContext[TrainingRules]:
    """Return the context of a run of `remind_training`."""
    pack = pack_of(
        {"bench": "bench_db"},
        {TRAINING.file: RULES},
        calendar=CALENDAR,
        notices=NOTIFICATION_RULES,
        roles={OWNER.id: OWNER},
    )
    run = Run("remind_training", parameters["run"])
    databases = {"bench": parameters["company"]}
    return run_context(TRAINING, pack, databases, engine(parameters["state"]), DayClock(), run)


def ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure how the task `plan` computes all obligations, and return their digest."""
    run = context_of(parameters)
    begun = time.monotonic()
    with open_sources(run) as sources:
        open_obligations = list(
            obligations.compute_obligations(
                sources,
                day=run.today,
                thresholds=thresholds_on(run.rules.ladder, run.workdays, run.today),
                waived=[],
                grace=run.rules.leave_grace,
            )
        )
    seconds = time.monotonic() - begun
    digest_rows = [
        (type(obligation).__name__.lower(), *astuple(obligation)) for obligation in open_obligations
    ]
    due, untrained = Due.__name__.lower(), Untrained.__name__.lower()
    return {
        "seconds": seconds,
        "digest": _digest(digest_rows),
        "due": sum(obligation[0] == due for obligation in digest_rows),
        "untrained": sum(obligation[0] == untrained for obligation in digest_rows),
    }


def by_hand(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure the handwritten query for the same obligations, and return their digest."""
    begun = time.monotonic()
    with psycopg.connect(parameters["company"]) as connection:
        rows = connection.execute(data.BY_HAND, {"day": data.DAY}).fetchall()
    seconds = time.monotonic() - begun
    return {"seconds": seconds, "digest": _digest(map(_of_hand, rows))}


def _of_hand(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row of the handwritten query with the fields of ParcelSeal's obligation."""
    kind, *rest = row
    if kind == "due":
        return (kind, *rest[:7])
    if kind == "untrained":
        return (kind, *rest[:2], bool(rest[6]), rest[7])
    return (kind, rest[0], *rest[6 : 11 if kind == "department" else 10])


def _digest(rows: Iterable[tuple[Any, ...]]) -> str:
    digest = hashlib.sha256()
    for line in sorted("|".join(map(str, row)) for row in rows):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def planned(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure the first step of a run, `plan`."""
    run = context_of(parameters)
    begun = time.monotonic()
    record = step_record(PLAN, run)
    return {"seconds": time.monotonic() - begun, "told": record.data["told"]}


def sent(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure the second step of a run, which sends every reminder that is still due."""
    run = context_of(parameters)
    extra = {"from_email": "Training <training@courier.example>"}
    extra |= {"disable_ssl": "true", "disable_tls": "true"}
    spec = ConnectionSpec("mail", "smtp", "127.0.0.1", parameters["port"], extra=extra)
    writer = Writer(NOTIFICATION_RULES.languages, CALENDAR.timezone)
    office = DeliveryConfig(
        state=run.state,
        channels={"mail": MailChannel(lambda: MailServer.from_connection(spec), writer)},
        rules=NOTIFICATION_RULES,
        workdays=run.workdays,
        quiet=CALENDAR.quiet,
        zone=run.zone,
        clock=run.clock,
        still_due={
            kind: partial(notifications.still_due, run, kind=kind)
            for kind in (REMINDER, COPY, DEPARTMENT)
        },
    )
    begun = time.monotonic()
    delivered = deliver(office)
    return {
        "seconds": time.monotonic() - begun,
        "sent": delivered.sent,
        "notices": delivered.notifications,
        "left": delivered.deferred
        + delivered.undeliverable
        + delivered.in_doubt
        + delivered.withdrawn
        + delivered.waiting,
    }


PARTS = {"ours": ours, "by_hand": by_hand, "plan": planned, "send": sent}


def main() -> None:
    """Measure the part that the file names, and write the result into the file."""
    file = Path(sys.argv[1])
    parameters = json.loads(file.read_text())
    file.write_text(json.dumps(PARTS[parameters["part"]](parameters)))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
