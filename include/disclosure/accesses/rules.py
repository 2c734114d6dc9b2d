"""The key `accesses` of use.yaml: the log of accesses and the approvals to compare it with.

PIPL (2021-11-01), article 51, requires that access rights are determined, and article 54 requires
regular audits of processing. The periods below are the company's own choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from include.policy.period import Period, PositivePeriod
from include.policy.rules import Day, Name, Rule, Sql, Unit
from include.policy.section import Loc, PackNames

CLAUSE_PURPOSE, CLAUSE_USE = "4.3", "5.3"
STEP_COMPARE = "compare"

WITHOUT_APPROVAL = "accesses_without_approval"  # metrics of the controls
OUTSIDE_PURPOSE = "accesses_outside_purpose"

_LONGEST_OVERLAP = timedelta(days=366)


class ViolationKind(StrEnum):
    """The way in which an access differs from its approval.

    Attributes:
        WITHOUT_APPROVAL: the access names no approval of its person.
        BY_REQUESTER: the requester approved the request, so the approval is not valid.
        OUTSIDE_PERIOD: the access happened before or after the approval was valid.
        OUTSIDE_PURPOSE: the access has another purpose than the approval.
        OUTSIDE_FIELDS: the access read fields that the approval does not name.
        OUTSIDE_RECORDS: the access read a record that the approval does not name.
    """

    WITHOUT_APPROVAL = "without_approval"
    BY_REQUESTER = "approval_by_requester"
    OUTSIDE_PERIOD = "outside_period"
    OUTSIDE_PURPOSE = "outside_purpose"
    OUTSIDE_FIELDS = "outside_fields"
    OUTSIDE_RECORDS = "outside_records"


NOT_LIVE = (
    ViolationKind.WITHOUT_APPROVAL,
    ViolationKind.BY_REQUESTER,
    ViolationKind.OUTSIDE_PERIOD,
)
"""The kinds of accesses that no live approval covers."""


class AccessRules(Rule):
    """The log of accesses to customer records, and the approvals to compare it with.

    Both queries run in one read-only transaction. A moment is a ``timestamp with time zone``;
    convert a column without a time zone in the query, for example with ``AT TIME ZONE
    'Asia/Shanghai'``.

    Attributes:
        database: Mapped database that both queries read.
        log: SELECT with one row per access and these columns: ``access`` (key of the access),
            ``person`` (staff number), ``at`` (moment of the access) and ``approval`` (key of the
            approval that the access names, or null). Optional columns: ``purpose``, ``fields``
            (array of field names; null if the log does not record them), ``subject`` (key of the
            customer; it is never stored) and ``department`` of the person at the access. If
            ``purpose`` or ``fields`` is missing, the report states that it was not compared.
        approvals: SELECT with one row per approval and these columns: ``approval`` (key),
            ``person`` (staff number of the requester), ``approver`` (staff number; null if nobody
            approved), ``starts`` and ``ends`` (first and last moment at which the approval is
            valid). Optional columns: ``purpose``, ``fields`` (array; null for all fields),
            ``subjects`` (array of customer keys; null for all customers), ``entered_at`` (moment
            at which the approval was entered; it does not cover earlier accesses) and
            ``withdrawn_at`` (moment from which it is withdrawn, or null).
        compare_from: First day whose accesses are compared, in the pack's timezone. Without it, the
            whole log is compared.
        overlap: Time before the newest compared access from which the next run reads the log
            again. Accesses that are written to the log later than this are found by the next full
            comparison.
        full_every: Time after which a run compares the whole log again. Only a full comparison
            finds changed approvals, closes violations that no longer exist, and counts unused
            approvals.
        peer_days: Number of days for which the report compares the accesses of each person with the
            median of the department.
    """

    database: Name
    log: Sql
    approvals: Sql
    compare_from: Day | None = None
    overlap: PositivePeriod = Period.parse("P2D")
    full_every: PositivePeriod = Period.parse("P7D")
    peer_days: Annotated[int, Field(ge=1, le=366), Unit("days")] = 30

    @model_validator(mode="after")
    def _overlap_is_short(self) -> AccessRules:
        if self.overlap.span > _LONGEST_OVERLAP:
            raise ValueError("overlap should not be longer than a year: P2D")
        return self


def check_accesses(rules: AccessRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the faults of the key `accesses`: a database that the pack does not map.

    Yields:
        The path of the faulty value below the key `accesses`, and the error message.
    """
    if rules.database not in pack.inventory:
        yield ("database",), f"the pack maps no database {rules.database!r}"
