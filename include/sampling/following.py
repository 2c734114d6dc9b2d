"""The last step of `conclude_audit`: open findings, their owners, and what is still not mended.

It follows the whole register: corrective actions of incidents have owners and days as findings of
audits do, and nothing else reminds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings
from include.findings import register as findings
from include.findings.following import remind
from include.messages import _
from include.notify.outbox import Run
from include.policy.notices import NoticeRules
from include.policy.rules import Role
from include.sampling import issue, results
from include.sampling.desk import Desk
from include.sampling.issue import Issued
from include.sampling.names import CLAUSE, NOTICE, STEP_FOLLOW_UP


def follow_up(desk: Desk) -> StepRecord:
    """Remind the owners of open findings, each once a week, and say which are overdue."""
    seen = StepFindings(STEP_FOLLOW_UP, CLAUSE)
    with desk.state.begin() as conn:
        left = _reminded(conn, desk.roles, desk.notices, Run(*desk.run), desk.now)
        last = results.latest(conn)
        issued = [] if last else issue.all_issued(conn)
    if not last:
        _no_verdict(seen, issued)
    _still_not_accepted(seen, desk, last, left)
    return _followed(seen, left, desk.now)


def follow_up_only(
    conn: Connection,
    *,
    roles: Mapping[str, Role],
    rules: NoticeRules,
    run: Run,
    now: datetime,
) -> StepRecord:
    """Do the same where nothing is audited by samples: incidents leave corrective actions too.

    Args:
        conn: the state database, in a transaction.
        roles: of roles.yaml.
        rules: of notices.yaml.
        run: that reminds.
        now: the moment, in the timezone whose days count.
    """
    left = _reminded(conn, roles, rules, run, now)
    return _followed(StepFindings(STEP_FOLLOW_UP, CLAUSE), left, now)


def _reminded(
    conn: Connection, roles: Mapping[str, Role], rules: NoticeRules, run: Run, now: datetime
) -> list[findings.Found]:
    """Remind; the findings that are open."""
    remind(conn, NOTICE, roles=roles, rules=rules, run=run, now=now)
    return findings.listed(conn)


def _followed(seen: StepFindings, left: Sequence[findings.Found], now: datetime) -> StepRecord:
    late = [one for one in left if one.overdue(now.date())]
    for owner in sorted({one.owner for one in late}):
        numbers = [one.id for one in late if one.owner == owner]
        seen.find(
            "sampling.findings_overdue",
            Outcome.FAIL,
            _(
                "{count} findings are past their day: {numbers}.",
                count=len(numbers),
                numbers=", ".join(map(str, numbers[:20])) + ("…" if len(numbers) > 20 else ""),
            ),
            _("Answer them, mend the causes and have them tested again: `findings list`."),
            subject=owner,
        )
    seen.measure("audit_findings_overdue", len(late), "1")
    seen.measure("sampling.findings_open", len(left), "1")
    return seen.record(
        {
            "reminded": [one.id for one in left if _today(one, now)],
            "open": [_told(one) for one in left],
        }
    )


def _no_verdict(seen: StepFindings, issued: Sequence[Issued]) -> None:
    """Report why no population has a verdict, so that the control has no figure yet.

    Where the workpapers are back, the evaluation says itself why it reached none.
    """
    out = [workpapers for workpapers in issued if workpapers.handed_in is None]
    if out:
        seen.find(
            "sampling.no_verdict",
            Outcome.ATTENTION,
            _(
                "No population has been judged yet; workpapers that are not back: {count}.",
                count=len(out),
            ),
            _("Nothing has to be changed: the figure is measured once they are handed in."),
        )
    elif not issued:
        seen.find(
            "sampling.no_verdict",
            Outcome.ATTENTION,
            _("No population has been judged yet: no sample has been drawn."),
            _("Have the sample of the quarter drawn."),
        )


def _still_not_accepted(
    seen: StepFindings,
    desk: Desk,
    last: Mapping[str, tuple[str, bool]],
    left: Sequence[findings.Found],
) -> None:
    """Say which populations were not accepted when they were judged last, and are not mended.

    A day on which nothing was judged does not make them good; this run's own are told already.
    """
    above, told = 0, results.not_accepted_by(desk.records().values())
    for name, (audit, accepted) in last.items():
        still = [one for one in left if one.reference.startswith(f"{audit}/{name}/")]
        if accepted or not still:
            continue
        above += 1
        if (audit, name) in told:
            continue
        population = desk.rules.find(name)
        seen.find(
            "sampling.still_not_accepted",
            Outcome.FAIL,
            _(
                "{population} was not accepted in {audit}, and {count} of its findings are open.",
                population=population.message if population else name,
                audit=audit,
                count=len(still),
            ),
            _("Have them mended and tested again; then this ends."),
            subject=name,
        )
    seen.measure("populations_above_tolerable_rate", above if last else None, "1")


def _today(one: findings.Found, now: datetime) -> bool:
    """Whether its owner was reminded today, by this try of the step or an earlier one."""
    at = one.reminded_at
    return at is not None and at.astimezone(now.tzinfo).date() == now.date()


def _told(one: findings.Found) -> dict[str, Any]:
    return {
        "id": one.id,
        "reference": one.reference,
        "what": one.what.model_dump(mode="json"),
        "owner": one.owner,
        "due_on": one.due_on.isoformat(),
        "state": str(one.state),
        "retests": one.retests,
    }
