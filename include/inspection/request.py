"""The clauses and the period of an inspection pack."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from include.policy import PolicyPack
from include.services.errors import UsageError

MOST_CLAUSES = 50
_FIRST, _LAST = date(1970, 1, 1), date(9000, 1, 1)


@dataclass(frozen=True)
class PackRequest:
    """The selection of bundles for an inspection pack.

    Attributes:
        clauses: numbers of the clauses, in the order of the request, without duplicates.
        controls: ids of the controls of these clauses in the policy pack.
        first_day: first day of the period.
        last_day: last day of the period, which belongs to the period.
        zone: timezone of the days.
    """

    clauses: tuple[str, ...]
    controls: frozenset[str]
    first_day: date
    last_day: date
    zone: ZoneInfo

    @property
    def since(self) -> datetime:
        """The time at which the period begins."""
        return datetime.combine(self.first_day, time(), self.zone)

    @property
    def until(self) -> datetime:
        """The time at which the period has ended."""
        return datetime.combine(self.last_day + timedelta(days=1), time(), self.zone)


def request_of(
    pack: PolicyPack,
    clauses: Sequence[str],
    first_day: date,
    last_day: date,
    sealed_clauses: Collection[str] = (),
) -> PackRequest:
    """Return the checked selection for an inspection pack.

    Args:
        pack: the policy pack, which assigns controls to clauses.
        clauses: numbers of policy clauses.
        first_day: first day of the period, in the timezone of the policy pack.
        last_day: last day of the period.
        sealed_clauses: further clauses that may be chosen, because sealed bundles are evidence for
            them.

    Raises:
        UsageError: no clause or too many clauses are named, no control belongs to a clause, the
            first day is after the last day, or a day is outside of the permitted range.
    """
    available = sorted({control.clause for control in pack.controls}.union(sealed_clauses))
    chosen = tuple(dict.fromkeys(clauses))
    if not chosen:
        raise UsageError("No clause is named.", f"Use one of: {', '.join(available)}.")
    if len(chosen) > MOST_CLAUSES:
        raise UsageError(
            f"{len(chosen)} clauses are named; a pack can have at most {MOST_CLAUSES}.",
            "Create several packs.",
        )
    if unknown := [clause for clause in chosen if clause not in available]:
        raise UsageError(
            f"No control of the policy pack belongs to the clause {unknown[0]!r}.",
            f"Use one of: {', '.join(available)}.",
        )
    if first_day > last_day:
        raise UsageError(
            f"The first day {first_day} is after the last day {last_day}.",
            "Swap the days, or correct one of them.",
        )
    if first_day < _FIRST or last_day > _LAST:
        raise UsageError(
            f"The period must lie between {_FIRST} and {_LAST}.", "Choose days in this range."
        )
    controls = frozenset(control.id for control in pack.controls if control.clause in chosen)
    return PackRequest(chosen, controls, first_day, last_day, pack.calendar.zone)
