"""What `review_partners`, the command line and the sharing of information work with; no Airflow."""

from __future__ import annotations

from include.notify.outbox import Run
from include.partners.desk import Desk
from include.partners.standing import Standing
from include.services.errors import UsageError
from include.workdays.calendar import Workdays
from include.workplace import Workplace

NO_RUN = Run("", "")


def desk_of(place: Workplace, run: Run = NO_RUN) -> Desk:
    """Return what works on partners are done with.

    Args:
        place: the workplace.
        run: whose work it is; none outside of a run.

    Raises:
        UsageError: the pack has no partners.
    """
    pack = place.pack
    rules = pack.partners
    if rules is None:
        raise UsageError(
            "The policy pack has no partners.yaml: it knows no partners.",
            "Write one: docs/partners.md.",
        )
    mapped = pack.database(rules.source.database)
    return Desk(
        rules=rules,
        notices=pack.notices,
        roles=pack.roles,
        database=mapped,
        reader=place.role_database(rules.connection, mapped.connection),
        workdays=Workdays(pack.calendar),
        state=place.state,
        clock=place.clock,
        zone=pack.calendar.zone,
        run=run,
    )


def standing_of(place: Workplace, partner: str) -> Standing:
    """Say whether a partner may be given customer information now; to be asked before each sharing.

    Args:
        place: the workplace.
        partner: number of the partner in the register.

    Raises:
        UsageError: the pack has no partners, or the register cannot be read.
        ServiceError: a database is not there.
    """
    return desk_of(place).standing(partner)
