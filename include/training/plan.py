"""The step that decides who is told what today, and measures how many are trained."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection

from include.evidence.examination import Examination
from include.evidence.model import StepRecord
from include.evidence.steps import keep_artifact
from include.notify import outbox
from include.notify.names import NOT_WANTED
from include.notify.notice import Notice
from include.state.locks import exclusive
from include.training import checks, coverage, judging, notices, waivers
from include.training.desk import Desk
from include.training.keys import told_of
from include.training.ladder import is_copied
from include.training.names import (
    CLAUSE,
    COPY,
    DEPARTMENT,
    OVERDUE_FILE,
    REMINDER,
    STEP_PLAN,
)
from include.training.obligations import Due, codes
from include.training.people import Roster
from include.training.standing import Standing, standing
from include.training.weeks import week_of

_PATIENCE = timedelta(minutes=10)  # with a run that plans at the same time
_BLOCK = 1000  # reminders looked up and queued together
_LISTED = 200  # overdue obligations and people in the report; the file has all


def plan(desk: Desk) -> StepRecord:
    """Work out who has to be told what, queue it once, and take back what is settled.

    Raises:
        UsageError: training.yaml's queries cannot be read.
        ServiceError: a database was lost, or another run plans for too long.
    """
    seen = Examination(STEP_PLAN, CLAUSE)
    with desk.state.connect() as conn:
        waived = waivers.listed(conn, desk.today)
    with (
        exclusive(desk.state, "training:plan", "the reminders of training", _PATIENCE),
        desk.sources() as sources,
    ):
        faults = checks.check(seen, sources, desk.today)
        found = standing(desk, sources, [one.waives for one in waived])
        late = found.overdue(desk.today)
        roster = Roster(sources, desk.today)
        with desk.state.begin() as conn:
            before = coverage.last(conn, desk.clock.now())
            told = _tell(conn, desk, found, roster)
            coverage.keep(conn, desk.run, desk.today, desk.clock.now(), found.departments)
            keep_artifact(
                conn, desk.run.dag_id, desk.run.run_id, OVERDUE_FILE, _listing(late, desk.today)
            )
        people, courses = roster.find(one.person for one in waived), codes(sources)
        unknown = [one for one in waived if one.person not in people or one.course not in courses]
    whole = judging.judge(seen, desk, found, late, faults)
    judging.waivers_of_nothing(seen, unknown)
    judging.shrunk(seen, found.people, before)
    return seen.record(
        {
            "day": desk.today.isoformat(),
            "workday": desk.workdays.is_workday(desk.today),
            "told": told,
            "whole": whole,
            "people": found.people,
            "covered": found.covered,
            "departments": [asdict(one) for one in found.departments],
            "topics": [asdict(one) for one in found.topics],
            "untrained": [asdict(one) for one in found.untrained[:_LISTED]],
            "untrained_all": len(found.untrained),
            "not_employed": faults["training.access_not_employed"],
            "overdue": [_row(one) for one in late[:_LISTED]],
            "overdue_all": len(late),
            "waived": [
                {
                    "person": one.person,
                    "course": one.course,
                    "until": one.until.isoformat(),
                    "reason": one.reason,
                    "waives": one not in unknown,
                }
                for one in waived
            ],
        }
    )


def _tell(conn: Connection, desk: Desk, found: Standing, roster: Roster) -> dict[str, int]:
    """Queue what was not told yet, and take back what stands no more; returns counts."""
    copied = {key: due for key, due in found.due.items() if is_copied(desk.rules.ladder, due.rung)}
    at = desk.clock.now()
    gone = 0
    for kind, standing_now in ((REMINDER, found.due), (COPY, copied)):
        stale = [
            key for key in outbox.pending(conn, kind) if key.partition("#")[0] not in standing_now
        ]
        gone += outbox.withdraw(conn, kind, stale, NOT_WANTED, at)
    own = _new(conn, REMINDER, found.due)
    copies = _new(conn, COPY, copied)
    counts = {"withdrawn": gone, "reminders": 0, "copies": 0, "summaries": 0}
    if not desk.workdays.is_workday(desk.today):
        return counts  # the rungs are those of the workday before, and nobody is told today
    for block in _blocks(own):
        people = roster.find(one.person for one in block)
        made = [notices.reminder(one, people[one.person]) for one in block if one.person in people]
        counts["reminders"] += _queued(conn, desk, made)
    role = desk.roles[desk.rules.owner]
    said: set[tuple[str, str]] = set()
    for block in _blocks(copies):
        people = roster.find(one.person for one in block)
        above = roster.above(one.person for one in block)
        made = [
            notice
            for one in block
            if one.person in people
            for notice in notices.copy(one, people[one.person], above[one.person], role)
        ]
        counts["copies"] += _queued(conn, desk, made)
        said |= {(one.recipient, one.key) for one in made}
    summaries = _summaries(conn, desk, found, roster, said)
    counts["summaries"] = _queued(conn, desk, summaries)
    return counts


def _queued(conn: Connection, desk: Desk, made: Iterable[Notice]) -> int:
    done = outbox.queue(conn, made, desk.run, desk.clock.now(), desk.notices)
    return done.new + done.again


def _summaries(
    conn: Connection,
    desk: Desk,
    found: Standing,
    roster: Roster,
    said: Collection[tuple[str, str]],
) -> list[Notice]:
    """The lines of this week's summaries, for heads who were not told this week yet.

    What the same mail tells a head as a supervisor already (``said``) is not named again.
    """
    week = week_of(desk.today)
    late: dict[str, list[Due]] = {}
    for one in found.overdue(desk.today):
        late.setdefault(one.department, []).append(one)
    made: list[Notice] = []
    for of in found.departments:
        for head in roster.heads().get(of.name, []):
            overdue = [
                one for one in late.get(of.name, []) if (head.person, told_of(one).key) not in said
            ]
            first = overdue[: notices.MOST_LINES]
            names = {key: one.name for key, one in roster.find(d.person for d in first).items()}
            lines = list(notices.summary(notices.Week(of, overdue, names), head, week))
            # All of a week's lines are told together: one more would be a second summary.
            if outbox.untold(conn, DEPARTMENT, [lines[0].key]):
                made += lines
    return made


def _new(conn: Connection, kind: str, due: dict[str, Due]) -> list[Due]:
    untold = outbox.untold(conn, kind, due)
    return [one for key, one in due.items() if key in untold]


def _blocks(due: Sequence[Due]) -> Iterable[Sequence[Due]]:
    return (due[at : at + _BLOCK] for at in range(0, len(due), _BLOCK))


def _row(one: Due) -> dict[str, Any]:
    return asdict(one) | {"due_on": one.due_on.isoformat()}


def _listing(late: Sequence[Due], day: date) -> bytes:
    """Every overdue obligation as CSV; a byte order mark lets Excel read it."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("person", "department", "course", "due_on", "days_overdue", "rung"))
    for one in late:
        days = (day - one.due_on).days
        named = (_harmless(text) for text in (one.person, one.department, one.course))
        rows.writerow((*named, one.due_on, days, one.rung))
    return text.getvalue().encode("utf-8-sig")


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
