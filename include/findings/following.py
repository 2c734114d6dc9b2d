"""Following open findings: their owners are told once a week until somebody else tested again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from include.findings import register
from include.findings.register import Found
from include.messages import _
from include.notify import outbox
from include.notify.notice import Notice, to_role
from include.notify.outbox import Run
from include.policy.rules import NoticeRules, Role

_HEADING = _("Findings that you answer for")


def remind(
    conn: Connection,
    notice: str,
    *,
    roles: Mapping[str, Role],
    rules: NoticeRules,
    run: Run,
    now: datetime,
) -> list[int]:
    """Remind the owners of open findings that are due soon or over, each once a week.

    Whatever work they are of: there is one register, and nobody else reminds. It keeps that they
    were reminded, and their notices are queued with it.

    Args:
        conn: the state database, in a transaction.
        notice: kind of the notices, ``audit.finding``.
        roles: of roles.yaml; an owner that is none of them is not told.
        rules: of notices.yaml.
        run: that reminds.
        now: the moment, in the timezone whose days count.

    Returns:
        Numbers of the findings whose owners were reminded.
    """
    due = [
        one
        for one in register.listed(conn)
        if one.to_be_reminded(now) and one.owner in roles  # nobody was reminded who is not told
    ]
    for one in due:
        register.remind(conn, one.id, by=run.dag_id, at=now)
    outbox.queue(conn, _notices(due, notice, roles, now), run, now, rules)
    return [one.id for one in due]


def still_open(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Of these keys of notices, those whose finding nobody closed since."""
    open_ones = {str(one.id) for one in register.listed(conn)}
    return {key for key in keys if key.partition("/")[0] in open_ones}


def _notices(
    due: Sequence[Found], kind: str, roles: Mapping[str, Role], now: datetime
) -> Iterator[Notice]:
    for one in due:
        values = {"number": one.id, "what": one.what, "day": one.due_on}
        if one.overdue(now.date()):
            line = _("No. {number}, was due on {day} and is overdue: {what}", **values)
        else:
            line = _("No. {number}, due on {day}: {what}", **values)
        yield from to_role(
            roles[one.owner],
            kind=kind,
            key=f"{one.id}/{now.date()}",
            heading=_HEADING,
            line=line,
            due_on=one.due_on,
        )
