"""Who owns the retention schedule, and who may approve a plan that is larger than usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from include.approvals.names import without
from include.approvals.people import members
from include.policy.datamap import MappedDatabase
from include.policy.retention import Approval


@dataclass(frozen=True)
class People:
    """The people of one question.

    Attributes:
        owners: user ids of those whose work the schedule is, and of who started the run.
        approvers: user ids of those who may answer; none of them is an owner.
    """

    owners: tuple[str, ...]
    approvers: tuple[str, ...]


def people_of(
    connection: psycopg.Connection[Any] | None,
    staff: MappedDatabase | None,
    rule: Approval,
    starter: str | None,
) -> People:
    """Look up who may approve.

    Args:
        connection: to the database of the staff table; None where the pack names none.
        staff: that database.
        rule: of disposition.yaml.
        starter: user id of who started the run; None when its schedule did.
    """
    owners = {
        *members(connection, staff, rule.staff, rule.owners, in_doubt=True),
        *([starter] if starter else []),
    }
    approvers = members(connection, staff, rule.staff, rule.approvers)
    return People(tuple(sorted(owners)), tuple(without(approvers, owners)))
