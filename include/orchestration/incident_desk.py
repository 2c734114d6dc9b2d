"""What incidents are worked on with, in a run and on the command line; no Airflow."""

from __future__ import annotations

from include.incident.desk import Desk
from include.notify.outbox import Run
from include.policy.incident import IncidentRules
from include.services.errors import UsageError
from include.workplace import Workplace

NO_RUN = Run("", "")


def rules_of(place: Workplace) -> IncidentRules:
    """The rules of incidents.

    Raises:
        UsageError: the pack has none.
    """
    if place.pack.incident is None:
        raise UsageError(
            "The policy pack has no incident.yaml: nobody knows how an incident is led.",
            "Write one: docs/incidents.md.",
        )
    return place.pack.incident


def desk_of(
    place: Workplace,
    run: Run = NO_RUN,
    *,
    started_by: str | None = None,
    scenario: str = "",
) -> Desk:
    """Return what works on incidents are done with.

    Args:
        place: the workplace; in a drill one whose state is a sandbox.
        run: whose work it is; none outside of a run.
        started_by: user id of who started the run.
        scenario: of a drill; empty for a real incident.

    Raises:
        UsageError: the pack has no incident.yaml, or no such scenario.
    """
    pack, rules = place.pack, rules_of(place)
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
            name: place.role_database(
                rules.scope_of(name).connection or rules.connection, mapped.connection
            )
            for name, mapped in databases.items()
        },
        staff=(staff, place.role_database(rules.connection, staff.connection)),
        state=place.state,
        clock=place.clock,
        zone=pack.calendar.zone,
        run=run,
        started_by=started_by,
        scenario=rules.scenario(scenario) if scenario else None,
    )
