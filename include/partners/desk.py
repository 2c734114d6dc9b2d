"""What `review_partners`, and whoever asks for a partner's standing, work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.notify.outbox import Run
from include.partners import history, register
from include.partners.history import NOTHING, Known
from include.partners.register import Partner, Register
from include.partners.standing import Bound, Standing, bind, standing
from include.policy.datamap import MappedDatabase
from include.policy.notices import NoticeRules
from include.policy.partners import PartnerRules
from include.policy.rules import Role
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.workdays.calendar import Workdays


@dataclass(frozen=True)
class Desk:
    """The rules and the services.

    Attributes:
        rules: partners.yaml.
        notices: of notices.yaml.
        roles: of roles.yaml, by id.
        database: of the register.
        reader: where that is, as one who may read the register.
        workdays: of calendar.yaml.
        state: the state database.
        clock: the time.
        zone: of the pack.
        run: dag id and run id; empty outside of a run.
    """

    rules: PartnerRules
    notices: NoticeRules
    roles: Mapping[str, Role]
    database: MappedDatabase
    reader: DatabaseAddress
    workdays: Workdays
    state: Engine
    clock: Clock
    zone: ZoneInfo
    run: Run

    @property
    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def today(self) -> date:
        """The day it is there."""
        return self.now.date()

    @property
    def owner(self) -> Role:
        """The role that answers for partners."""
        return self.roles[self.rules.owner]

    def register(self) -> Register:
        """Read the register."""
        return register.read(self.reader, self.database, self.rules, self.today)

    def partner(self, number: str) -> Partner:
        """The partner of that number.

        Raises:
            UsageError: the register has none.
        """
        found = self.register().partners.get(number)
        if found is None:
            raise UsageError(
                f"The register has no partner {number}.", "See ./parcelseal partners list."
            )
        return found

    def bound(self, known: Mapping[str, Known], partners: Mapping[str, Partner]) -> list[Bound]:
        """What binds partners of the register, by their numbers' natural order.

        Args:
            known: reviews of each.
            partners: of the register, by number.
        """
        return [
            bind(one, known.get(one.number, NOTHING), self.rules, self.zone)
            for one in sorted(partners.values(), key=natural)
        ]

    def standing(self, number: str) -> Standing:
        """Whether anything may be shared with a partner now, and why not.

        Args:
            number: of the partner.
        """
        partners = self.register().partners
        with self.state.connect() as conn:
            known = history.known(conn, number)
        return standing(number, partners, known, self.rules, self.today, self.zone)


def natural(partner: Partner) -> tuple[int, int, str]:
    """Sorts 9 before 10, and numbers before other names."""
    number = partner.number
    is_number = number.isascii() and number.isdecimal()
    return (0, int(number), number) if is_number else (1, 0, number)
