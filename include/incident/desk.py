"""What the steps of an incident work with: the rules, the databases, the state, the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from include.incident import register, timeline
from include.incident.as_opened import as_opened
from include.incident.clocks.milestones import grades, valid
from include.incident.register import Incident
from include.incident.rule_checks import INCIDENT
from include.incident.rules import IncidentRules, Scenario
from include.incident.timeline import Entry
from include.notify.outbox import Run
from include.policy.datamap import MappedDatabase
from include.policy.notices import NoticeRules
from include.policy.rules import Role
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.workflow.run_context import OUTSIDE_OF_RUNS
from include.workplace import Workplace


@dataclass(frozen=True)
class Desk:
    """The rules and the services.

    Attributes:
        rules: incident.yaml of today; `rules_of` are those of an incident.
        roles: of roles.yaml, by id.
        notices: of notices.yaml.
        databases: in which is counted what is affected, by name.
        readers: where these are, as one who may read just that, by name.
        staff: the database of the staff table, and where it is.
        state: the state database; a sandbox of it in a drill.
        clock: the time.
        zone: of the pack.
        run: that works on it; empty outside of one.
        started_by: user id of who started that run; None where nobody did.
        scenario: of a drill; None for a real incident.
    """

    rules: IncidentRules
    roles: Mapping[str, Role]
    notices: NoticeRules
    databases: Mapping[str, MappedDatabase]
    readers: Mapping[str, DatabaseAddress]
    staff: tuple[MappedDatabase, DatabaseAddress]
    state: Engine
    clock: Clock
    zone: ZoneInfo
    run: Run
    started_by: str | None = None
    scenario: Scenario | None = None

    @property
    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    def rules_of(self, file: File) -> IncidentRules:
        """The rules that an incident is measured by (`as_opened`)."""
        return as_opened(self.rules, file.incident.kept, file.incident.clocks)

    def file(self, number: str) -> File:
        """All that is known of an incident now.

        Raises:
            UsageError: there is none of that number.
        """
        with self.state.connect() as conn:
            return file_of(conn, number)


def desk_of(
    services: Workplace,
    run: Run = OUTSIDE_OF_RUNS,
    *,
    started_by: str | None = None,
    scenario: str = "",
) -> Desk:
    """Return the rules and services of incidents.

    Args:
        services: of the run or command; those of a drill have a state of their own.
        run: dag id and run id; empty outside of a run.
        started_by: user id of the person who started the run.
        scenario: of a drill; empty for a real incident.

    Raises:
        UsageError: the pack has no incident.yaml, or no such scenario.
    """
    pack = services.pack
    rules = pack.require(INCIDENT)
    if scenario and scenario not in {one.id for one in rules.scenarios}:
        raise UsageError(f"incident.yaml has no scenario {scenario}.")
    databases = {one.database: pack.database(one.database) for one in rules.scope}
    staff = pack.database_of(rules.staff.collection, rules.staff.database)
    return Desk(
        rules=rules,
        roles=pack.roles,
        notices=pack.notices,
        databases=databases,
        readers={
            name: services.role_database(
                rules.scope_of(name).connection or rules.connection, mapped.connection
            )
            for name, mapped in databases.items()
        },
        staff=(staff, services.role_database(rules.connection, staff.connection)),
        state=services.state,
        clock=services.clock,
        zone=pack.calendar.zone,
        run=run,
        started_by=started_by,
        scenario=rules.scenario(scenario) if scenario else None,
    )


@dataclass(frozen=True)
class File:
    """An incident with its timeline.

    Attributes:
        incident: the incident.
        entries: its timeline, oldest entry first.
    """

    incident: Incident
    entries: Sequence[Entry]

    @property
    def valid(self) -> list[Entry]:
        """What counts of the timeline: entries that were not corrected, oldest first."""
        return valid(self.entries)

    @property
    def grade(self) -> str | None:
        """The grade that stands, by the timeline; None before one was confirmed.

        The register's column is for lists alone: it is in no chain of digests.
        """
        found = grades(self.entries)
        return found[-1].grade if found else None


def file_of(conn: Connection, number: str) -> File:
    """All that is known of an incident, as of this transaction.

    Raises:
        UsageError: there is none of that number.
    """
    found = register.get(conn, number)
    return File(found, timeline.entries(conn, found.id))
