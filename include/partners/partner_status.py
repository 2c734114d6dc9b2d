"""The terms that bind partners, the rungs of their reminders, and whether sharing is allowed.

The workflow that shares customer information asks here before it gives anything out (policy 4.3,
4.4; Personal Information Protection Law (2021-11-01) 21). Sharing is refused if anything about a
partner is not known.

An agreement is in force on its last day and has lapsed on the day after it. A review is valid for
the period of the partner's tier: a year from 2026-03-31 ends with 2027-03-31.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, tzinfo
from enum import StrEnum

from include.messages import Message, _
from include.partners import history
from include.partners.history import NOTHING, Known
from include.partners.register import Partner, register_of
from include.partners.rules import PartnerRules
from include.policy.period import Period
from include.workflow.run_context import RunContext

_DAY = timedelta(days=1)
RUNS_EVERY = timedelta(days=7)  # the schedule of `review_partners`


class ObligationKind(StrEnum):
    """A kind of obligation, or the reason why a review is not in force."""

    NDA = "nda"
    AGREEMENT = "agreement"
    REVIEW = "review"
    FAILED = "failed"
    REOPENED = "reopened"


class State(StrEnum):
    """The state of a term on a day."""

    VALID = "valid"
    NOT_YET = "not_yet"
    LAPSED = "lapsed"
    MISSING = "missing"


@dataclass(frozen=True)
class Term:
    """An obligation that must be in force before sharing is allowed.

    Attributes:
        what: it is.
        last_day: on which it holds; None where nobody says.
        first_day: on which it holds; None where it has no beginning.
    """

    what: ObligationKind
    last_day: date | None
    first_day: date | None = None

    def state(self, today: date) -> State:
        """The state of a term on a day."""
        if self.last_day is None:
            return State.MISSING
        if today > self.last_day:
            return State.LAPSED
        if self.first_day is not None and today < self.first_day:
            return State.NOT_YET
        return State.VALID


def after(day: date, period: Period) -> date:
    """The day that a period of days, months or years leads to; a shorter month ends earlier."""
    months = day.year * 12 + day.month - 1 + period.months
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)) + timedelta(days=period.days)


def review_term(
    last: date | None,
    every: Period | None,
    *,
    failed_on: date | None = None,
    reopened_on: date | None = None,
) -> Term:
    """Return the term of a partner's review.

    A failed review, and one that was opened again, does not hold from that day on, whatever an
    earlier one came to.

    Args:
        last: day of the last review that counts as passed.
        every: period for which it holds; None where the partner's tier is not known.
        failed_on: day on which the last review was found to fail.
        reopened_on: day on which the review was opened again.
    """
    if reopened_on is not None:
        return Term(ObligationKind.REOPENED, reopened_on - _DAY)
    if failed_on is not None:
        return Term(ObligationKind.FAILED, failed_on - _DAY)
    if last is None or every is None:
        return Term(ObligationKind.REVIEW, None)
    return Term(ObligationKind.REVIEW, after(last, every))


def rung(
    last_day: date | None, today: date, next_telling: date, ladder: Sequence[int], every: int
) -> int | None:
    """Return the rung that is reached: days from the last day on, negative before it.

    A rung before the last day comes with the last run from which people can still be told in time,
    not with the first one after it. From the lapse on there is one every so many days, without end;
    so there is where no last day is known.

    Args:
        last_day: on which something holds; None where nobody says.
        today: the day.
        next_telling: the next day on which people could be told, if not now.
        ladder: days before the last day, falling.
        every: days between rungs from the lapse on.

    Returns:
        The rung; None before the first.
    """
    if last_day is None:
        return today.toordinal() // every * every
    if today > last_day:
        return 1 + ((today - last_day).days - 1) // every * every
    reached = [days for days in ladder if last_day - timedelta(days=days) < next_telling]
    return -min(reached) if reached else None


@dataclass(frozen=True)
class PartnerObligations:
    """A partner and what binds it.

    Attributes:
        partner: of the register.
        terms: confidentiality agreement, data-processing agreement, review; none where the
            register does not say one thing of it.
        known: its reviews.
    """

    partner: Partner
    terms: tuple[Term, ...]
    known: Known

    def term(self, *wanted: ObligationKind) -> Term | None:
        """The first term of one of these kinds."""
        return next((term for term in self.terms if term.what in wanted), None)

    @property
    def review(self) -> Term | None:
        """The term of its review."""
        return self.term(ObligationKind.REVIEW, ObligationKind.FAILED, ObligationKind.REOPENED)

    def is_bound(self, today: date) -> bool:
        """Return whether both agreements are in force."""
        found = [self.term(kind) for kind in (ObligationKind.NDA, ObligationKind.AGREEMENT)]
        return all(term is not None and term.state(today) is State.VALID for term in found)

    def is_reviewed(self, today: date) -> bool:
        """Return whether its review holds."""
        return self.review is not None and self.review.state(today) is State.VALID


@dataclass(frozen=True)
class PartnerStatus:
    """Whether a partner may be given customer information.

    Attributes:
        partner: its number.
        reasons: why not; none where it may.
    """

    partner: str
    reasons: tuple[Message, ...]

    @property
    def allowed(self) -> bool:
        """Whether nothing stands against it."""
        return not self.reasons


def bind(partner: Partner, known: Known, rules: PartnerRules, zone: tzinfo) -> PartnerObligations:
    """Return the obligations of a partner.

    Args:
        partner: of the register.
        known: its reviews.
        rules: partners.yaml.
        zone: whose days count.
    """
    if not partner.clear:
        return PartnerObligations(partner, (), known)
    tier = rules.tier(partner.tier)
    done = [day for day in (partner.last_review_on, known.passed_on(zone)) if day is not None]
    review = review_term(
        max(done, default=None),
        tier.review_every if tier else None,
        failed_on=known.failed_on(zone),
        reopened_on=known.reopened_on(zone),
    )
    terms = (
        Term(ObligationKind.NDA, partner.nda_until, partner.nda_from),
        Term(ObligationKind.AGREEMENT, partner.agreement_until),
        review,
    )
    return PartnerObligations(partner, terms, known)


def standing(
    number: str,
    partners: Mapping[str, Partner],
    known: Mapping[str, Known],
    rules: PartnerRules,
    today: date,
    zone: tzinfo,
) -> PartnerStatus:
    """Return whether a partner may receive customer information today.

    Args:
        number: of the partner.
        partners: of the register, by number.
        known: reviews of each.
        rules: partners.yaml.
        today: the day.
        zone: whose days count.
    """
    partner = partners.get(number)
    if partner is None:
        return PartnerStatus(number, (_("The register has no such partner."),))
    return of(bind(partner, known.get(number, NOTHING), rules, zone), today)


def bound_of(
    run: RunContext[PartnerRules], known: Mapping[str, Known], partners: Mapping[str, Partner]
) -> list[PartnerObligations]:
    """Return the obligations of partners, sorted by number.

    Args:
        run: the context.
        known: reviews of each partner.
        partners: of the register, by number.
    """
    return [
        bind(partner, known.get(partner.number, NOTHING), run.rules, run.zone)
        for partner in sorted(partners.values(), key=_natural)
    ]


def standing_of(run: RunContext[PartnerRules], number: str) -> PartnerStatus:
    """Return whether a partner may receive customer information now; call it before each sharing.

    Args:
        run: the context.
        number: of the partner in the register.

    Raises:
        UsageError: the register cannot be read.
        ServiceError: a database cannot be reached.
    """
    partners = register_of(run).partners
    with run.state.connect() as conn:
        known = history.known(conn, number)
    return standing(number, partners, known, run.rules, run.today, run.zone)


def _natural(partner: Partner) -> tuple[int, int, str]:
    """Sort 9 before 10, and numbers before other names."""
    number = partner.number
    is_number = number.isascii() and number.isdecimal()
    return (0, int(number), number) if is_number else (1, 0, number)


def of(bound: PartnerObligations, today: date) -> PartnerStatus:
    """Return whether sharing with a partner is allowed by its obligations."""
    partner = bound.partner
    if not partner.clear:
        return PartnerStatus(partner.number, (_("The register has more than one row of it."),))
    reasons = [blocking_reason(term, today) for term in bound.terms]
    if not partner.live:
        reasons.append(_("It has no access."))
    return PartnerStatus(partner.number, tuple(reason for reason in reasons if reason is not None))


def blocking_reason(term: Term, today: date) -> Message | None:
    """Return why a term blocks sharing, or None if it is in force."""
    state, what = term.state(today), term.what
    if state is State.VALID:
        return None
    if state is State.NOT_YET:
        return _("The confidentiality agreement begins on {day}.", day=term.first_day)
    if state is State.MISSING:
        return _MISSING[what]
    day = term.last_day
    match what:
        case ObligationKind.NDA:
            return _("The confidentiality agreement ended on {day}.", day=day)
        case ObligationKind.AGREEMENT:
            return _("The data-processing agreement ended on {day}.", day=day)
        case ObligationKind.REVIEW:
            return _("The security review was due on {day}.", day=day)
        case ObligationKind.FAILED:
            return _("The last security review failed.")
        case ObligationKind.REOPENED:
            return _("The security review was opened again and is not decided on.")


_MISSING = {
    ObligationKind.NDA: _("No end of a confidentiality agreement is known."),
    ObligationKind.AGREEMENT: _("No end of a data-processing agreement is known."),
    ObligationKind.REVIEW: _("No day of a security review, or no tier, is known."),
}
