"""Determine the people who may answer a step of an incident.

These are the people with the duty of the step, without excluded accounts. An account that was
entered as a suspect in a form is excluded: its owner may have caused the incident, or a thief may
have the password. Timeline entries record later changes of the team. If the staff table cannot be
read, the accounts named in the policy pack may answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL

from include.approvals.approvers import exclude_people, group_members, is_among, same_person
from include.incident.entries import EntryData, Scoped, TeamChange
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.rules import Duty, HumanStep
from include.incident.timeline import Entry
from include.policy.datamap import MappedDatabase
from include.policy.fragments import quoted
from include.policy.mapping import StaffGroup
from include.services.errors import ServiceError, UsageError


@dataclass(frozen=True)
class Team:
    """The people who are currently allowed to answer a step, or to enter an update of an incident.

    Attributes:
        people: user ids of these people. For a step, deputies and management are included if the
            step was not answered in time before, or if no person with the duty may answer.
        excluded: user ids of suspects and of people who were removed from the team.
        unanswered_count: number of times that the step was not answered in time.
        involved: user ids of team members who may not answer, because the answer is about their own
            work.
    """

    people: Sequence[str]
    excluded: Sequence[str]
    unanswered_count: int = 0
    involved: Sequence[str] = ()

    def is_member(self, account: str) -> bool:
        """Return whether the owner of an account is one of `people`."""
        return self.member(account) is not None

    def member(self, account: str) -> str | None:
        """Return a user id as `people` spells it, or None if the user is not in `people`.

        Args:
            account: user id in any spelling.
        """
        return next((person for person in self.people if same_person(person, account)), None)


def team_of(
    run: IncidentRun, record: IncidentRecord, step: HumanStep, never: Iterable[str] = ()
) -> Team:
    """Determine the people who may answer a step of an incident.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        step: step that a person has to answer.
        never: user ids of people who may not answer, because the answer is about their own work.

    Raises:
        ServiceError: the staff database is not available, and the policy pack names no accounts.
    """
    unanswered_count = sum(
        entry.kind is Kind.UNANSWERED and entry.as_(EntryData).step == step
        for entry in record.entries
    )
    duty = run.rules.duty(run.rules.steps[step])
    suspects, involved = _excluded_accounts(record), [*never]
    excluded_accounts = [*suspects, *involved]
    assigned = [person.account for person in _assignments(record) if person.duty == duty.id]
    escalation_groups = [duty.deputies, run.rules.duty(run.rules.management).people]
    try:
        accounts = [*_members(run, [duty.people]), *assigned]
        if unanswered_count or not exclude_people(
            accounts, excluded_accounts
        ):  # or no holder of the duty may answer
            accounts += _members(run, escalation_groups)
    except ServiceError:
        accounts = [*_pack_accounts([duty.people, *escalation_groups]), *assigned]
        if not exclude_people(accounts, excluded_accounts):
            raise
    people = tuple(dict.fromkeys(exclude_people(accounts, excluded_accounts)))
    writers = set(exclude_people(accounts, suspects)) - set(
        exclude_people(accounts, excluded_accounts)
    )
    return Team(people, tuple(suspects), unanswered_count, tuple(sorted(writers)))


def whole_team(run: IncidentRun, record: IncidentRecord) -> Team:
    """Return the people with any duty of the team and all deputies, without excluded accounts.

    Raises:
        ServiceError: the staff database is not available, and the policy pack names no accounts.
    """
    people, excluded = _duty_holders(run, record, run.rules.team)
    return Team(people, excluded)


def is_known_account(run: IncidentRun, account: str) -> bool:
    """Return whether an account exists in the staff table or is named in the policy pack.

    If the staff table cannot be read, only the accounts in the policy pack are known.
    """
    if is_among(account, _pack_accounts(_groups(run.rules.team))):
        return True
    database, rule = _staff_database(run), run.rules.staff
    table = database.collections[rule.collection]
    query = SQL("SELECT DISTINCT p.{account}::text FROM {staff} AS p").format(
        staff=quoted(table.schema_name, table.table), account=quoted(rule.account)
    )
    try:
        with run.services.staff(database, run.rules.connection_to(database.name)) as connection:
            return is_among(account, [stored or "" for (stored,) in connection.execute(query)])
    except (ServiceError, UsageError, psycopg.Error):
        return False


def leaders(run: IncidentRun, record: IncidentRecord) -> Team:
    """Return the people who may close the incident, the management, and the deputies of both.

    Excluded accounts are left out. If nobody remains, return the whole team.

    Raises:
        ServiceError: the staff database is not available, and the policy pack names no accounts.
    """
    duties = [run.rules.duty(name) for name in (run.rules.steps["close"], run.rules.management)]
    people, excluded = _duty_holders(run, record, duties, leading=True)
    return Team(people, excluded) if people else whole_team(run, record)


def _duty_holders(
    run: IncidentRun, record: IncidentRecord, duties: Sequence[Duty], *, leading: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the user ids of the people who have one of the duties, and the excluded accounts.

    Deputies are included. Excluded accounts belong to suspects, and to people who were removed from
    the incident team. The first part of the result never contains them.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        duties: duties whose people are returned.
        leading: if true, a person who was assigned during the incident is returned only if the
            assignment was to one of `duties`, and the result may be empty. If false, everyone who
            was assigned during the incident is returned, whatever the duty.

    Raises:
        ServiceError: the staff table cannot be read, the policy pack names no accounts, and
            `leading` is false.
    """
    groups, names = _groups(duties), {duty.id for duty in duties}
    excluded = _excluded_accounts(record)
    assigned = [
        person.account for person in _assignments(record) if not leading or person.duty in names
    ]
    try:
        people = exclude_people([*_members(run, groups), *assigned], excluded)
    except ServiceError:
        people = exclude_people([*_pack_accounts(groups), *assigned], excluded)
        if not people and not leading:
            raise
    return tuple(dict.fromkeys(people)), tuple(excluded)


def _groups(duties: Iterable[Duty]) -> list[StaffGroup]:
    return [group for duty in duties for group in (duty.people, duty.deputies)]


def _staff_database(run: IncidentRun) -> MappedDatabase:
    staff = run.rules.staff
    return run.pack.database_of(staff.collection, staff.database)


def _members(run: IncidentRun, groups: Sequence[StaffGroup]) -> list[str]:
    database, rule = _staff_database(run), run.rules.staff
    if not any(group.where for group in groups):
        return _pack_accounts(groups)
    try:
        with run.services.staff(database, run.rules.connection_to(database.name)) as connection:
            accounts_by_group = [
                group_members(connection, database, rule, group) for group in groups
            ]
    except UsageError as error:  # the login's password was changed, or the login was dropped
        raise ServiceError(error.message, error.action) from None
    except psycopg.Error as error:
        raise ServiceError(
            f"The staff table cannot be read (SQLSTATE {error.sqlstate}).",
            "Restore it, or correct `team` in incident.yaml.",
        ) from None
    return [account for group in accounts_by_group for account in group]


def _pack_accounts(groups: Iterable[StaffGroup]) -> list[str]:
    return [account for group in groups for account in group.accounts]


def _assignments(record: IncidentRecord) -> list[TeamChange]:
    return [entry.as_(TeamChange) for entry in record.entries if entry.kind is Kind.ASSIGNED]


def _excluded_accounts(record: IncidentRecord) -> list[str]:
    """Return the suspects and the people who were removed from the team.

    People who were assigned again later are left out. The suspects are the accounts that were
    entered to define which records are affected. If accounts are added with a wider scope, they are
    suspects from that time on.

    Args:
        record: incident with its timeline.
    """
    excluded = list(record.incident.selection.accounts)
    suspects = list(excluded)
    for entry in record.entries:
        for suspect in entry.as_(Scoped).accounts if entry.kind is Kind.SCOPED else ():
            if not is_among(suspect, suspects):
                suspects.append(suspect)
                excluded.append(suspect)
        if entry.kind is Kind.TAKEN_OFF:
            excluded.append(entry.as_(TeamChange).account)
        elif entry.kind is Kind.ASSIGNED:
            excluded = exclude_people(excluded, [entry.as_(TeamChange).account])
    return excluded


def answer_authors(entries: Iterable[Entry], kind: Kind) -> set[str]:
    """Return the user ids of the people who wrote the timeline entries of a given kind.

    Args:
        entries: entries of one incident.
        kind: kind of event that the entries record.
    """
    return {entry.by for entry in entries if entry.kind is kind}
