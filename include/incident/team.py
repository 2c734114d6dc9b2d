"""Who may do a step: the duty's people, without suspects and those who were taken off.

Whose account did it, by the trigger form, is never asked: it may be the person, or whoever has the
password. Who is taken off or put on later stands on the timeline with who said so and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from include.approvals.names import as_compared
from include.approvals.people import members
from include.incident.desk import Desk, File
from include.incident.names import Kind
from include.incident.timeline import Entry
from include.policy.incident import HumanStep
from include.policy.people import Group


@dataclass(frozen=True)
class Team:
    """Who may do one step now.

    Attributes:
        people: user ids of those who may answer; deputies and management after silence.
        left_out: user ids of suspects and those who were taken off.
        silent: how often nobody answered so far.
    """

    people: Sequence[str]
    left_out: Sequence[str]
    silent: int = 0

    def may(self, account: str) -> bool:
        """Whether that person is of the team now."""
        return as_compared(account) in {as_compared(one) for one in self.people}


def team_of(desk: Desk, file: File, step: HumanStep, never: Iterable[str] = ()) -> Team:
    """Look up who may do a step.

    Args:
        desk: of the incident.
        file: the incident.
        step: the human step.
        never: user ids of people whose own work it is about.

    Raises:
        ServiceError: the database of the staff table is not there.
    """
    silent = sum(
        one.kind is Kind.UNANSWERED and one.data.get("step") == step for one in file.entries
    )
    duty = desk.rules.duty(desk.rules.steps[step])
    groups = [duty.people]
    if silent:
        groups += [duty.deputies, desk.rules.duty(desk.rules.management).people]
    with _staff(desk) as connection:
        found = _members(connection, desk, groups)
        if not _without(found, _left_out(file)) and not silent:
            # everybody is a suspect: deputies and management at once
            more = [duty.deputies, desk.rules.duty(desk.rules.management).people]
            found += _members(connection, desk, more)
    found += [
        str(one.data["account"])
        for one in file.entries
        if one.kind is Kind.ASSIGNED and one.data.get("duty") == duty.id
    ]
    out = [*_left_out(file), *never]
    return Team(tuple(dict.fromkeys(_without(found, out))), tuple(out), silent)


def everybody(desk: Desk, file: File) -> Team:
    """Whoever has any duty of the team, or is a deputy or of its management; suspects left out.

    Raises:
        ServiceError: the database of the staff table is not there.
    """
    groups = [group for duty in desk.rules.team for group in (duty.people, duty.deputies)]
    with _staff(desk) as connection:
        found = _members(connection, desk, groups)
    assigned = [one for one in file.entries if one.kind is Kind.ASSIGNED]
    found += [str(one.data["account"]) for one in assigned]
    out = _left_out(file)
    return Team(tuple(dict.fromkeys(_without(found, out))), tuple(out))


@contextmanager
def _staff(desk: Desk) -> Iterator[psycopg.Connection[Any]]:
    """A session in which conditions of the pack may name tables without their schema."""
    database, address = desk.staff
    with address.connect(autocommit=True) as connection:
        path = [database.schema_name]
        connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", path)
        yield connection


def _members(connection: psycopg.Connection[Any], desk: Desk, groups: Iterable[Group]) -> list[str]:
    database, rule = desk.staff[0], desk.rules.staff
    return [account for group in groups for account in members(connection, database, rule, group)]


def _left_out(file: File) -> list[str]:
    """Suspects of the form, and whoever was taken off and not put on again since."""
    out = list(file.incident.selection.accounts)
    for one in file.entries:
        account = str(one.data.get("account", ""))
        if one.kind is Kind.TAKEN_OFF:
            out.append(account)
        elif one.kind is Kind.ASSIGNED:
            out = [other for other in out if as_compared(other) != as_compared(account)]
    return out


def _without(people: Iterable[str], out: Iterable[str]) -> list[str]:
    hidden = {as_compared(one) for one in out}
    return [one for one in people if as_compared(one) not in hidden]


def who_answered(entries: Iterable[Entry], kind: Kind) -> set[str]:
    """User ids of those whose answers of a kind count."""
    return {one.by for one in entries if one.kind is kind}
