"""The violations of accesses and approvals, computed in plain Python.

Tests compare the results of `include.disclosure.accesses` with this module. Therefore this module
uses nothing of that package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Access:
    """A row of the access log."""

    access: int
    person: str | None
    subject: int | None
    purpose: str | None
    fields: tuple[str, ...] | None
    at: datetime | None
    approval: int | None


@dataclass(frozen=True)
class Approval:
    """A row of the approvals."""

    approval: int
    person: str | None
    approver: str | None
    purpose: str | None
    fields: tuple[str, ...] | None
    subjects: tuple[int, ...] | None
    starts: datetime | None
    ends: datetime | None
    entered_at: datetime | None
    withdrawn_at: datetime | None


def violations(accesses: Sequence[Access], approvals: Sequence[Approval]) -> set[tuple[str, str]]:
    """Return the access key and the kind of each violation."""
    copies = Counter(approval.approval for approval in approvals)
    by_key = {approval.approval: approval for approval in approvals}
    result = set()
    for access in accesses:
        approval = None
        if access.approval is not None and copies[access.approval] == 1:
            approval = by_key[access.approval]
        for kind in kinds(access, approval):
            result.add((str(access.access), kind))
    return result


def kinds(access: Access, approval: Approval | None) -> set[str]:
    """Return the kinds of an access, compared with the only approval that has the named key."""
    if approval is None or access.person is None or approval.person != access.person:
        return {"without_approval"}
    if approval.approver is None:
        return {"without_approval"}
    result = set()
    if approval.approver == approval.person:
        result.add("approval_by_requester")
    if not is_live(access.at, approval):
        result.add("outside_period")
    if access.purpose is None or access.purpose != approval.purpose:
        result.add("outside_purpose")
    both_name_fields = access.fields is not None and approval.fields is not None
    if both_name_fields and not set(access.fields or ()) <= set(approval.fields or ()):
        result.add("outside_fields")
    if approval.subjects is not None and access.subject not in approval.subjects:
        result.add("outside_records")
    return result


def is_live(at: datetime | None, approval: Approval) -> bool:
    """Return whether an approval is valid at a moment."""
    starts, ends, entered_at = approval.starts, approval.ends, approval.entered_at
    if at is None or starts is None or ends is None or entered_at is None:
        return False
    if approval.withdrawn_at is not None and approval.withdrawn_at <= at:
        return False
    return max(starts, entered_at) <= at <= ends


def never_used(
    accesses: Sequence[Access], approvals: Sequence[Approval], now: datetime
) -> set[str]:
    """Return the keys of approvals that ended, and that no access names."""
    used = {access.approval for access in accesses}
    first = min((access.at for access in accesses if access.at is not None), default=None)
    return {
        str(approval.approval)
        for approval in approvals
        if first is not None
        and approval.approval not in used
        and approval.approver is not None
        and approval.withdrawn_at is None
        and approval.ends is not None
        and approval.ends < now
        and approval.starts is not None
        and approval.starts >= first
    }
