"""Decisions of people about findings: comments, new owners, and accepted risks.

roles.yaml names the people of each role, and findings.yaml the roles that may decide. A decision
never changes the outcome of a run or a control. It is an event of the register, so the next
evidence bundle of any workflow seals it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.approvals.approvers import is_among
from include.approvals.reasons import has_words, redact_reason
from include.findings import register
from include.findings.register import (
    MAX_COMMENTS,
    Event,
    Finding,
    State,
    append_event,
    get_finding,
)
from include.policy.period import add_period
from include.policy.rules import FindingRules, Role
from include.services.errors import UsageError


@dataclass(frozen=True)
class Decision:
    """A person's decision about a finding, before it is checked and recorded.

    Attributes:
        number: number of the finding.
        by: user id of the person.
        at: time of the decision.
        reason: reason in words. Passages that look like customer numbers are redacted.
        version: version of the finding that the person saw; None if the decision does not depend on
            it. See `Finding.version`.
    """

    number: int
    by: str
    at: datetime
    reason: str
    version: str | None = None


@dataclass(frozen=True)
class Deciders:
    """The roles of the policy pack, and the roles whose people may decide about findings.

    Attributes:
        roles: id of a role -> role of roles.yaml.
        rules: rules of findings.yaml.
        zone: timezone of the policy pack.
    """

    roles: Mapping[str, Role]
    rules: FindingRules
    zone: ZoneInfo

    def roles_of(self, person: str) -> frozenset[str]:
        """Return the ids of the roles that list a person."""
        return frozenset(role.id for role in self.roles.values() if is_among(person, role.accounts))

    def holds(self, person: str, roles: Collection[str]) -> bool:
        """Return whether a person has one of the given roles."""
        return not self.roles_of(person).isdisjoint(roles)

    def may_comment(self, person: str, finding: Finding) -> bool:
        """Return whether a person may comment on a finding.

        These are the people of the owner, and all who may reassign findings or accept risks.
        """
        return self.holds(person, {finding.owner, *self.rules.reassign, *self.rules.accept_risk})

    def may_reassign(self, person: str, finding: Finding) -> bool:
        """Return whether a person may name another owner or another responsible person."""
        return self.holds(person, {finding.owner, *self.rules.reassign})

    def may_accept(self, person: str, finding: Finding) -> bool:
        """Return whether a person may accept the risk of a finding.

        The people of the owner may not, and neither may people who answered the finding or were
        responsible for it at any time.
        """
        is_involved = is_among(person, (*finding.answerers, *finding.assignees))
        return (
            self.holds(person, self.rules.accept_risk)
            and not self.holds(person, {finding.owner})
            and not is_involved
        )


def comment(conn: Connection, deciders: Deciders, decision: Decision) -> Finding:
    """Record a comment on a finding.

    Args:
        conn: connection to the state database, with an open transaction.
        deciders: the people who may comment.
        decision: the comment, as its reason.

    Raises:
        UsageError: the finding does not exist, is closed or has too many comments, the comment has
            no words, or the person may not comment.
    """
    finding = _locked(conn, decision)
    if not deciders.may_comment(decision.by, finding):
        raise _not_entitled(decision.by, f"comment on finding {finding.id}")
    if len(finding.comments) >= MAX_COMMENTS:
        raise UsageError(
            f"Finding {finding.id} has {MAX_COMMENTS} comments, which is the limit.",
            "Answer the finding, or name another owner.",
        )
    return _record(conn, decision, Event.COMMENTED)


def answer(
    conn: Connection,
    deciders: Deciders,
    decision: Decision,
    *,
    cause: str,
    due_on: date | None = None,
) -> Finding:
    """Record the cause and the corrective action of a finding.

    Args:
        conn: connection to the state database, with an open transaction.
        deciders: the people who may decide.
        decision: the person, and the corrective action as its reason.
        cause: the cause in words. Passages that look like customer numbers are redacted.
        due_on: a later due date; None to keep the current due date.

    Raises:
        UsageError: the finding does not exist or is closed, a text has no words, the due date has
            passed or is too late, or the person may not answer.
    """
    finding = _locked(conn, decision)
    if not deciders.may_comment(decision.by, finding):
        raise _not_entitled(decision.by, f"answer finding {finding.id}")
    zone = deciders.zone
    latest = add_period(decision.at, deciders.rules.longest_postponement, zone)
    return register.answer(
        conn,
        finding.id,
        cause=cause,
        action=decision.reason,
        by=decision.by,
        at=decision.at.astimezone(zone),
        due_on=due_on,
        latest=latest.astimezone(zone).date(),
    )


def reassign(
    conn: Connection, deciders: Deciders, decision: Decision, *, owner: str, assignee: str = ""
) -> Finding:
    """Name another owner of a finding, or another responsible person of the owner.

    Args:
        conn: connection to the state database, with an open transaction.
        deciders: the people who may decide.
        decision: the person and the reason.
        owner: role of roles.yaml.
        assignee: user id of a person of that role; empty for nobody in particular.

    Raises:
        UsageError: the finding does not exist or is closed, the role does not exist, the assignee
            does not have the role, the reason is missing, or the person may not reassign.
    """
    finding = _locked(conn, decision)
    if not deciders.may_reassign(decision.by, finding):
        raise _not_entitled(decision.by, f"name another owner of finding {finding.id}")
    if owner not in deciders.roles:
        raise UsageError(
            f"roles.yaml has no role {owner}.", f"It has: {', '.join(sorted(deciders.roles))}."
        )
    if assignee and not is_among(assignee, deciders.roles[owner].accounts):
        raise UsageError(
            f"roles.yaml does not list {assignee} in the role {owner}.",
            "Name a person of the role, or leave out the person.",
        )
    if (owner, assignee) == (finding.owner, finding.assignee):
        return finding
    return _record(conn, decision, Event.REASSIGNED, owner=owner, assignee=assignee)


def accept_risk(
    conn: Connection, deciders: Deciders, decision: Decision, *, until: date
) -> Finding:
    """Record that a person accepts the risk of a finding until a date.

    The finding stays open, and the outcome of runs and controls stays the same. Until the date, the
    finding is not overdue and its owner gets no reminders. The acceptance ends early if a run
    reports a worse severity.

    Args:
        conn: connection to the state database, with an open transaction.
        deciders: the people who may decide.
        decision: the person and the reason.
        until: last day of the acceptance.

    Raises:
        UsageError: the finding does not exist or is closed, the date has passed or is too late, the
            reason is missing, or the person may not accept the risk.
    """
    finding = _locked(conn, decision)
    if not deciders.may_accept(decision.by, finding):
        raise _not_entitled(decision.by, f"accept the risk of finding {finding.id}")
    zone = deciders.zone
    latest = (
        add_period(decision.at, deciders.rules.longest_acceptance, zone).astimezone(zone).date()
    )
    if not decision.at.astimezone(zone).date() <= until <= latest:
        raise UsageError(
            f"{until} is not a permitted last day for an accepted risk.",
            f"Name a day between today and {latest} (findings.yaml, longest_acceptance).",
        )
    return _record(conn, decision, Event.ACCEPTED, until=until, severity=str(finding.severity))


def withdraw_acceptance(conn: Connection, deciders: Deciders, decision: Decision) -> Finding:
    """Record that the risk of a finding is no longer accepted.

    Args:
        conn: connection to the state database, with an open transaction.
        deciders: the people who may decide.
        decision: the person and the reason.

    Raises:
        UsageError: the finding does not exist or is closed, its risk is not accepted, the reason is
            missing, or the person may not decide about risks.
    """
    finding = _locked(conn, decision)
    if not deciders.holds(decision.by, deciders.rules.accept_risk):
        raise _not_entitled(decision.by, f"withdraw the acceptance of finding {finding.id}")
    if finding.acceptance is None:
        raise UsageError(f"Finding {finding.id} has no accepted risk that can be withdrawn.")
    return _record(conn, decision, Event.WITHDRAWN)


def _locked(conn: Connection, decision: Decision) -> Finding:
    """Lock and return the finding of a decision, after checking the decision itself."""
    if not decision.by.strip():
        raise UsageError("The person who decides is missing.", "Name the person with --by.")
    if not has_words(decision.reason):
        raise UsageError("The comment or reason contains no words.", "Write at least one sentence.")
    finding = get_finding(conn, decision.number, locked=True)
    if finding.state is State.CLOSED:
        raise UsageError(
            f"Finding {finding.id} is closed.",
            "If the problem is back, the next run enters a new finding.",
        )
    if decision.version not in (None, finding.version):
        raise UsageError(
            f"Finding {finding.id} has changed since you read it.",
            "Read the finding again, then decide.",
        )
    return finding


def _record(conn: Connection, decision: Decision, kind: Event, **columns: object) -> Finding:
    append_event(
        conn,
        decision.number,
        kind,
        decision.by,
        decision.at,
        reason=redact_reason(decision.reason),
        **columns,
    )
    return get_finding(conn, decision.number)


def _not_entitled(person: str, action: str) -> UsageError:
    return UsageError(
        f"{person} may not {action}.",
        "roles.yaml lists the people of each role, and findings.yaml the roles that may decide. "
        "People who answered a finding or are responsible for it cannot accept its risk.",
    )
