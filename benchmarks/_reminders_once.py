"""A part of `remind_training` in a process of its own, for `benchmarks.reminders`.

``python -m benchmarks._reminders_once FILE`` with what is asked for as JSON in FILE, which gets the
answer: obligations, the query by hand, the plan of a run, or its sending.
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
from include.notify.delivery import Office, deliver
from include.notify.letters import Writer
from include.notify.outbox import Run
from include.policy.rules import Calendar, NoticeRules, Role
from include.services.connections import ConnectionSpec
from include.services.mail import MailServer
from include.state.connect import engine
from include.training import notices, obligations
from include.training.obligations import Due, Untrained
from include.training.rules import TRAINING, TrainingRules, reached
from include.training.sources import COLUMNS, open_sources
from include.training.standing import COPY, DEPARTMENT, REMINDER
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
NOTICES = NoticeRules()


class DayClock:
    """Begins at ten on the benchmark's day, and goes on from there."""

    source = "the benchmark's day"

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._start = datetime.combine(data.DAY, datetime.min.time(), CALENDAR.zone)

    def now(self) -> datetime:
        """Return the moment."""
        return self._start + timedelta(hours=10, seconds=time.monotonic() - self._begun)


def context_of(given: dict[str, Any]) -> RunContext[TrainingRules]:
    """Return the context of a run."""
    pack = pack_of(
        {"bench": "bench_db"},
        {TRAINING.file: RULES},
        calendar=CALENDAR,
        notices=NOTICES,
        roles={OWNER.id: OWNER},
    )
    run = Run("remind_training", given["run"])
    databases = {"bench": given["company"]}
    return run_context(TRAINING, pack, databases, engine(given["state"]), DayClock(), run)


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """All obligations, as the plan gets them."""
    run = context_of(given)
    begun = time.monotonic()
    with open_sources(run) as sources:
        found = list(
            obligations.everything(
                sources,
                day=run.today,
                reached=reached(run.rules.ladder, run.workdays, run.today),
                waived=[],
                grace=run.rules.leave_grace,
            )
        )
    seconds = time.monotonic() - begun
    told = [(type(one).__name__.lower(), *astuple(one)) for one in found]
    due, untrained = Due.__name__.lower(), Untrained.__name__.lower()
    return {
        "seconds": seconds,
        "digest": _digest(told),
        "due": sum(one[0] == due for one in told),
        "untrained": sum(one[0] == untrained for one in told),
    }


def by_hand(given: dict[str, Any]) -> dict[str, Any]:
    """The same with a query of one's own."""
    begun = time.monotonic()
    with psycopg.connect(given["company"]) as connection:
        found = connection.execute(data.BY_HAND, {"day": data.DAY}).fetchall()
    seconds = time.monotonic() - begun
    return {"seconds": seconds, "digest": _digest(map(_of_hand, found))}


def _of_hand(row: Sequence[Any]) -> tuple[Any, ...]:
    """A row as the object of ours would have it."""
    what, *rest = row
    if what == "due":
        return (what, *rest[:7])
    if what == "untrained":
        return (what, *rest[:2], bool(rest[6]), rest[7])
    return (what, rest[0], *rest[6 : 11 if what == "department" else 10])


def _digest(rows: Iterable[tuple[Any, ...]]) -> str:
    digest = hashlib.sha256()
    for line in sorted("|".join(map(str, row)) for row in rows):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def planned(given: dict[str, Any]) -> dict[str, Any]:
    """The first step of a run."""
    run = context_of(given)
    begun = time.monotonic()
    record = step_record(PLAN, run)
    return {"seconds": time.monotonic() - begun, "told": record.data["told"]}


def sent(given: dict[str, Any]) -> dict[str, Any]:
    """The second step: every notice is asked about once more, and sent."""
    run = context_of(given)
    extra = {"from_email": "Training <training@courier.example>"}
    extra |= {"disable_ssl": "true", "disable_tls": "true"}
    spec = ConnectionSpec("mail", "smtp", "127.0.0.1", given["port"], extra=extra)
    writer = Writer(NOTICES.languages, CALENDAR.timezone)
    office = Office(
        state=run.state,
        channels={"mail": MailChannel(lambda: MailServer.from_connection(spec), writer)},
        rules=NOTICES,
        workdays=run.workdays,
        quiet=CALENDAR.quiet,
        zone=run.zone,
        clock=run.clock,
        confirm={
            kind: partial(notices.still_due, run, kind=kind)
            for kind in (REMINDER, COPY, DEPARTMENT)
        },
    )
    begun = time.monotonic()
    done = deliver(office)
    return {
        "seconds": time.monotonic() - begun,
        "sent": done.sent,
        "notices": done.notices,
        "left": done.deferred + done.undeliverable + done.in_doubt + done.withdrawn + done.waiting,
    }


PARTS = {"ours": ours, "by_hand": by_hand, "plan": planned, "send": sent}


def main() -> None:
    """Do what the file says."""
    file = Path(sys.argv[1])
    given = json.loads(file.read_text())
    file.write_text(json.dumps(PARTS[given["part"]](given)))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
