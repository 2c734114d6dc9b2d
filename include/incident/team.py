"""Who may do a step: the duty's people, without suspects and those who were taken off.

Whose account did it, by the trigger form, is never asked: it may be the person, or whoever has the
password. Who is taken off or put on later stands on the timeline with who said so and why. Where
the staff table is what was hit, those are asked whom the pack names by account.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL

from include.approvals.people import is_among, members, same_person, without
from include.incident.entries import EntryData, OfPerson, Scoped
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.rules import Duty, HumanStep
from include.incident.timeline import Entry
from include.policy.datamap import MappedDatabase
from include.policy.fragments import quoted
from include.policy.mapping import Group
from include.services.errors import ServiceError, UsageError


@dataclass(frozen=True)
class Team:
    """Who may do one step now.

    Attributes:
        people: user ids of those who may answer; deputies and management after silence.
        left_out: user ids of suspects and those who were taken off.
        silent: how often nobody answered so far.
        involved: user ids of those who would be asked, were it not about their own work.
    """

    people: Sequence[str]
    left_out: Sequence[str]
    silent: int = 0
    involved: Sequence[str] = ()

    def may(self, account: str) -> bool:
        """Return whether that person is of the team now."""
        return self.member(account) is not None

    def member(self, account: str) -> str | None:
        """That person's user id as the team has it; None where the person is not of it."""
        return next((person for person in self.people if same_person(person, account)), None)


def team_of(
    run: IncidentRun, record: IncidentRecord, step: HumanStep, never: Iterable[str] = ()
) -> Team:
    """Look up who may do a step.

    Args:
        run: the run or command.
        record: the incident.
        step: the human step.
        never: user ids of people whose own work it is about.

    Raises:
        ServiceError: the database of the staff table is not there, and the pack names nobody by
            account.
    """
    silent = sum(
        entry.kind is Kind.UNANSWERED and entry.as_(EntryData).step == step
        for entry in record.entries
    )
    duty = run.rules.duty(run.rules.steps[step])
    suspects, involved = _left_out(record), [*never]
    out = [*suspects, *involved]
    assigned = [person.account for person in _assigned(record) if person.duty == duty.id]
    others = [duty.deputies, run.rules.duty(run.rules.management).people]
    try:
        found = [*_members(run, [duty.people]), *assigned]
        if silent or not without(found, out):  # or everybody is a suspect, or wrote it
            found += _members(run, others)
    except ServiceError:
        found = [*_named([duty.people, *others]), *assigned]
        if not without(found, out):
            raise
    people = tuple(dict.fromkeys(without(found, out)))
    writers = set(without(found, suspects)) - set(without(found, out))
    return Team(people, tuple(suspects), silent, tuple(sorted(writers)))


def everybody(run: IncidentRun, record: IncidentRecord) -> Team:
    """Whoever has any duty of the team, or is a deputy or of its management; suspects left out.

    Raises:
        ServiceError: the database of the staff table is not there, and the pack names nobody by
            account.
    """
    people, out = _of_duties(run, record, run.rules.team)
    return Team(people, out)


def is_known(run: IncidentRun, account: str) -> bool:
    """Return whether there is such a person: in the staff table, or named by the pack.

    Where the staff table cannot be read, only whom the pack names is known.
    """
    if is_among(account, _named(_groups(run.rules.team))):
        return True
    database, rule = _staff_database(run), run.rules.staff
    table = database.collections[rule.collection]
    query = SQL("SELECT DISTINCT p.{account}::text FROM {staff} AS p").format(
        staff=quoted(table.schema_name, table.table), account=quoted(rule.account)
    )
    try:
        with run.services.staff(database, run.rules.connection_to(database.name)) as connection:
            return is_among(account, [named or "" for (named,) in connection.execute(query)])
    except (ServiceError, UsageError, psycopg.Error):
        return False


def leading(run: IncidentRun, record: IncidentRecord) -> Team:
    """Who leads the incident or is of its management, and their deputies; suspects left out.

    Where nobody of these is left, everybody of the team.

    Raises:
        ServiceError: the database of the staff table is not there, and the pack names nobody by
            account.
    """
    duties = [run.rules.duty(name) for name in (run.rules.steps["close"], run.rules.management)]
    people, out = _of_duties(run, record, duties, leading=True)
    return Team(people, out) if people else everybody(run, record)


def _of_duties(
    run: IncidentRun, record: IncidentRecord, duties: Sequence[Duty], *, leading: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the people of some duties with their deputies, and who is left out.

    Args:
        run: the run or command.
        record: the incident.
        duties: the duties; all of the team, unless `leading`.
        leading: whether these are the duties that lead; then there may be nobody left.

    Raises:
        ServiceError: the staff table cannot be read, and the pack names nobody by account.
    """
    groups, names = _groups(duties), {duty.id for duty in duties}
    out = _left_out(record)
    assigned = [
        person.account for person in _assigned(record) if not leading or person.duty in names
    ]
    try:
        people = without([*_members(run, groups), *assigned], out)
    except ServiceError:
        people = without([*_named(groups), *assigned], out)
        if not people and not leading:
            raise
    return tuple(dict.fromkeys(people)), tuple(out)


def _groups(duties: Iterable[Duty]) -> list[Group]:
    return [group for duty in duties for group in (duty.people, duty.deputies)]


def _staff_database(run: IncidentRun) -> MappedDatabase:
    staff = run.rules.staff
    return run.pack.database_of(staff.collection, staff.database)


def _members(run: IncidentRun, groups: Sequence[Group]) -> list[str]:
    database, rule = _staff_database(run), run.rules.staff
    if not any(group.where for group in groups):
        return _named(groups)
    try:
        with run.services.staff(database, run.rules.connection_to(database.name)) as connection:
            found = [members(connection, database, rule, group) for group in groups]
    except UsageError as error:  # its password was changed, or it was dropped
        raise ServiceError(error.message, error.action) from None
    except psycopg.Error as error:
        raise ServiceError(
            f"The staff table cannot be read (SQLSTATE {error.sqlstate}).",
            "Restore it, or correct `team` in incident.yaml.",
        ) from None
    return [account for group in found for account in group]


def _named(groups: Iterable[Group]) -> list[str]:
    return [account for group in groups for account in group.accounts]


def _assigned(record: IncidentRecord) -> list[OfPerson]:
    return [entry.as_(OfPerson) for entry in record.entries if entry.kind is Kind.ASSIGNED]


def _left_out(record: IncidentRecord) -> list[str]:
    """Suspects of the form or of an addition, and who was taken off; without who was put on again.

    Whose accounts are named in a later count is a suspect from then on.
    """
    out = list(record.incident.selection.accounts)
    named = list(out)
    for entry in record.entries:
        for suspect in entry.as_(Scoped).accounts if entry.kind is Kind.SCOPED else ():
            if not is_among(suspect, named):
                named.append(suspect)
                out.append(suspect)
        if entry.kind is Kind.TAKEN_OFF:
            out.append(entry.as_(OfPerson).account)
        elif entry.kind is Kind.ASSIGNED:
            out = without(out, [entry.as_(OfPerson).account])
    return out


def who_answered(entries: Iterable[Entry], kind: Kind) -> set[str]:
    """User ids of those whose answers of a kind count."""
    return {entry.by for entry in entries if entry.kind is kind}
