"""Who owns the retention schedule, and who may approve a plan that is larger than usual."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg

from include.approvals.names import without
from include.approvals.people import members
from include.policy.datamap import MappedDatabase
from include.policy.retention import Approval


@dataclass(frozen=True)
class People:
    """Owners and approvers of a plan.

    Attributes:
        owners: user ids of the owners of the schedule, of the person who started the run, and of
            those who entered requests to be erased that the plan follows.
        approvers: user ids of the people who may answer; none of them is an owner.
    """

    owners: tuple[str, ...]
    approvers: tuple[str, ...]


def people_of(
    connection: psycopg.Connection[Any] | None,
    staff: MappedDatabase | None,
    rule: Approval,
    starters: Collection[str],
) -> People:
    """Look up who may approve.

    Args:
        connection: to the database of the staff table; None where the pack names none.
        staff: that database.
        rule: of disposition.yaml.
        starters: who started the run, and who entered requests to be erased that the plan follows.
    """
    owners = {*members(connection, staff, rule.staff, rule.owners, in_doubt=True), *starters}
    approvers = members(connection, staff, rule.staff, rule.approvers)
    return People(tuple(sorted(owners)), tuple(without(approvers, owners)))
