"""Compute the obligations of partners, their reminder dates, and whether sharing is allowed.

A workflow that shares customer information has to call `load_partner_status` before each sharing
(policy 4.3, 4.4; Personal Information Protection Law (2021-11-01) 21). Sharing is refused if a
required fact about the partner is unknown.

An agreement is in force on its last day, and has lapsed on the day after it. A passed review is
valid for the review period of the partner's tier. If this period is one year, a review that passed
on 2026-03-31 is valid until 2027-03-31.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, tzinfo
from enum import StrEnum

from include.messages import Message, _
from include.partners import history
from include.partners.history import NO_REVIEWS, ReviewHistory
from include.partners.register import Partner, load_register
from include.partners.rules import PartnerRules
from include.policy.period import Period
from include.workflow.run_context import RunContext

_DAY = timedelta(days=1)
RUN_INTERVAL = timedelta(days=7)  # the schedule of `review_partners`


class ObligationKind(StrEnum):
    """The kinds of obligations that a partner has.

    A security review that failed (``FAILED``) and a review that was reopened (``REOPENED``) are
    separate kinds. The reason why sharing is refused is not the same as for an overdue review.
    """

    NDA = "nda"
    AGREEMENT = "agreement"
    REVIEW = "review"
    FAILED = "failed"
    REOPENED = "reopened"


class TermState(StrEnum):
    """The state of an agreement or review on a given day.

    The state is ``MISSING`` if the last day in force is unknown. Otherwise it is ``NOT_YET`` before
    the first day in force, ``VALID`` from the first to the last day, and ``LAPSED`` after the last
    day.
    """

    VALID = "valid"
    NOT_YET = "not_yet"
    LAPSED = "lapsed"
    MISSING = "missing"


@dataclass(frozen=True)
class Term:
    """An agreement or review of a partner that must be in force before sharing is allowed.

    Attributes:
        kind: kind of agreement or review.
        last_day: last day on which the agreement or review is in force; None if unknown.
        first_day: first day on which the agreement or review is in force; None if unknown.
    """

    kind: ObligationKind
    last_day: date | None
    first_day: date | None = None

    def state(self, today: date) -> TermState:
        """Return the state of the agreement or review on the day ``today``."""
        if self.last_day is None:
            return TermState.MISSING
        if today > self.last_day:
            return TermState.LAPSED
        if self.first_day is not None and today < self.first_day:
            return TermState.NOT_YET
        return TermState.VALID


def add_period(day: date, period: Period) -> date:
    """Return the day that is a number of days, months or years after a day.

    If the resulting month does not have the day, the last day of this month is used. For example,
    one month after 31 January is the last day of February.

    Args:
        day: day from which the period is counted.
        period: the days, months or years to add.
    """
    months = day.year * 12 + day.month - 1 + period.months
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)) + timedelta(days=period.days)


def review_term(
    last_passed_on: date | None,
    every: Period | None,
    *,
    failed_on: date | None = None,
    reopened_on: date | None = None,
) -> Term:
    """Return the obligation *security review* of a partner, with its last day in force.

    The last day in force is determined as follows:

    - If the open review was reopened, it is the day before the reopening.
    - Otherwise, if the newest decided review failed, it is the day before this decision.
    - Otherwise, it is the end of the period ``every``, which begins on the day of the last passed
      review. It is None if this day or the period is unknown.

    Args:
        last_passed_on: day on which a review last passed; None if no review passed.
        every: period for which a passed review is valid; None if the partner's tier is unknown.
        failed_on: day on which the newest decided review failed; None if it passed, or if no review
            was decided.
        reopened_on: day on which the open review was reopened; None if it was not reopened.
    """
    if reopened_on is not None:
        return Term(ObligationKind.REOPENED, reopened_on - _DAY)
    if failed_on is not None:
        return Term(ObligationKind.FAILED, failed_on - _DAY)
    if last_passed_on is None or every is None:
        return Term(ObligationKind.REVIEW, None)
    return Term(ObligationKind.REVIEW, add_period(last_passed_on, every))


def reminder_offset(
    last_day: date | None, today: date, next_send_day: date, ladder: Sequence[int], every: int
) -> int | None:
    """Return which reminder about an agreement or review is due today, as a number of days.

    The number counts from the last day on which the agreement or review is in force, and is
    negative before this day. For example, -30 is the reminder 30 days before the last day. Each
    reminder before the last day is due in the last run that can still send it in time. After the
    last day, or if the last day is unknown, a reminder is due every `every` days.

    Args:
        last_day: last day in force; None if unknown.
        today: today's date.
        next_send_day: first day after today on which reminders can be sent.
        ladder: numbers of days before the last day on which reminders are sent, in falling order.
        every: number of days between two reminders after the last day.

    Returns:
        The number of days; None if it is too early for the first reminder. Between two reminders,
        the result is the number of the earlier one. If the last day is unknown, the number only
        identifies the reminder: it changes every `every` days.
    """
    if last_day is None:
        return today.toordinal() // every * every
    if today > last_day:
        return 1 + ((today - last_day).days - 1) // every * every
    offsets = [days for days in ladder if last_day - timedelta(days=days) < next_send_day]
    return -min(offsets) if offsets else None


@dataclass(frozen=True)
class PartnerObligations:
    """A partner, the agreements and the review that it needs, and all its security reviews.

    Attributes:
        partner: the partner, as the partner register describes it.
        terms: agreements and review that must be in force: confidentiality agreement,
            data-processing agreement and security review. The tuple is empty if the register has
            several rows for the partner.
        reviews: security reviews of the partner.
    """

    partner: Partner
    terms: tuple[Term, ...]
    reviews: ReviewHistory

    def term(self, *kinds: ObligationKind) -> Term | None:
        """Return the first of ``terms`` whose kind is one of ``kinds``; None if there is none."""
        return next((term for term in self.terms if term.kind in kinds), None)

    @property
    def review(self) -> Term | None:
        """Return the item of ``terms`` for the security review; None if ``terms`` is empty."""
        return self.term(ObligationKind.REVIEW, ObligationKind.FAILED, ObligationKind.REOPENED)

    def is_bound(self, today: date) -> bool:
        """Return whether the confidentiality and the data-processing agreement are both in force.

        Args:
            today: day on which both agreements must be in force.
        """
        terms = [self.term(kind) for kind in (ObligationKind.NDA, ObligationKind.AGREEMENT)]
        return all(term is not None and term.state(today) is TermState.VALID for term in terms)

    def is_reviewed(self, today: date) -> bool:
        """Return whether the partner's security review is in force on the day ``today``."""
        return self.review is not None and self.review.state(today) is TermState.VALID


@dataclass(frozen=True)
class PartnerStatus:
    """The decision whether customer information may be shared with a partner, and its reasons.

    Attributes:
        partner: number of the partner.
        reasons: reasons for which sharing is refused; empty if sharing is allowed.
    """

    partner: str
    reasons: tuple[Message, ...]

    @property
    def is_allowed(self) -> bool:
        """Return whether customer information may be shared with the partner."""
        return not self.reasons


def partner_obligations(
    partner: Partner, history: ReviewHistory, rules: PartnerRules, zone: tzinfo
) -> PartnerObligations:
    """Return the agreements and the security review that a partner must have in force.

    Args:
        partner: the partner, as the partner register describes it.
        history: security reviews of the partner.
        rules: content of partners.yaml.
        zone: timezone that decides on which day a review was decided.
    """
    if not partner.is_unambiguous:
        return PartnerObligations(partner, (), history)
    tier = rules.tier(partner.tier)
    reviewed_on = [
        day for day in (partner.last_review_on, history.passed_on(zone)) if day is not None
    ]
    review = review_term(
        max(reviewed_on, default=None),
        tier.review_every if tier else None,
        failed_on=history.failed_on(zone),
        reopened_on=history.reopened_on(zone),
    )
    terms = (
        Term(ObligationKind.NDA, partner.nda_until, partner.nda_from),
        Term(ObligationKind.AGREEMENT, partner.agreement_until),
        review,
    )
    return PartnerObligations(partner, terms, history)


def partner_status(
    number: str,
    partners: Mapping[str, Partner],
    histories: Mapping[str, ReviewHistory],
    rules: PartnerRules,
    today: date,
    zone: tzinfo,
) -> PartnerStatus:
    """Decide whether customer information may be shared with a partner today.

    Sharing is refused with a partner that is not in the partner register.

    Args:
        number: number of the partner.
        partners: partners of the partner register, by number.
        histories: security reviews of each partner, by partner number.
        rules: content of partners.yaml.
        today: today's date.
        zone: timezone that decides on which day a review was decided.
    """
    partner = partners.get(number)
    if partner is None:
        return PartnerStatus(number, (_("The partner is not in the partner register."),))
    return sharing_status(
        partner_obligations(partner, histories.get(number, NO_REVIEWS), rules, zone), today
    )


def obligations_of(
    run: RunContext[PartnerRules],
    histories: Mapping[str, ReviewHistory],
    partners: Mapping[str, Partner],
) -> list[PartnerObligations]:
    """Return the obligations of each partner, sorted by partner number.

    Args:
        run: context of the run.
        histories: security reviews of each partner, by partner number.
        partners: partners of the partner register, by number.
    """
    return [
        partner_obligations(partner, histories.get(partner.number, NO_REVIEWS), run.rules, run.zone)
        for partner in sorted(partners.values(), key=_natural_order)
    ]


def load_partner_status(run: RunContext[PartnerRules], number: str) -> PartnerStatus:
    """Decide whether customer information may be shared with a partner now.

    A workflow has to call this function before each sharing.

    Args:
        run: context of the run.
        number: number of the partner in the partner register.

    Raises:
        UsageError: the partner register cannot be read.
        ServiceError: the state database or the database of the register cannot be reached.
    """
    partners = load_register(run).partners
    with run.state.connect() as conn:
        histories = history.load_histories(conn, number)
    return partner_status(number, partners, histories, run.rules, run.today, run.zone)


def _natural_order(partner: Partner) -> tuple[int, int, str]:
    """Return a sort key that sorts numeric partner numbers by their value: 9 before 10.

    Partners whose number is not numeric come last.
    """
    number = partner.number
    is_number = number.isascii() and number.isdecimal()
    return (0, int(number), number) if is_number else (1, 0, number)


def sharing_status(obligations: PartnerObligations, today: date) -> PartnerStatus:
    """Decide whether customer information may be shared with a partner on the day ``today``.

    Args:
        obligations: the partner and its obligations.
        today: the day for which the decision is made.
    """
    partner = obligations.partner
    if not partner.is_unambiguous:
        return PartnerStatus(
            partner.number, (_("The partner register has several entries for the partner."),)
        )
    reasons = [blocking_reason(term, today) for term in obligations.terms]
    if not partner.live:
        reasons.append(_("The partner has no access to customer information."))
    return PartnerStatus(partner.number, tuple(reason for reason in reasons if reason is not None))


def blocking_reason(term: Term, today: date) -> Message | None:
    """Return why an agreement or review blocks sharing on the day ``today``.

    The result is None if the agreement or review is in force on this day.

    Args:
        term: the agreement or review.
        today: the day for which the reason is determined.
    """
    state, kind = term.state(today), term.kind
    if state is TermState.VALID:
        return None
    if state is TermState.NOT_YET:
        return _("The confidentiality agreement takes effect on {day}.", day=term.first_day)
    if state is TermState.MISSING:
        return _MISSING[kind]
    day = term.last_day
    match kind:
        case ObligationKind.NDA:
            return _("The confidentiality agreement ended on {day}.", day=day)
        case ObligationKind.AGREEMENT:
            return _("The data-processing agreement ended on {day}.", day=day)
        case ObligationKind.REVIEW:
            return _("The due date of the security review, {day}, has passed.", day=day)
        case ObligationKind.FAILED:
            return _("The last security review failed.")
        case ObligationKind.REOPENED:
            return _("The security review was reopened, and there is no decision yet.")


_MISSING = {
    ObligationKind.NDA: _("The end date of the confidentiality agreement is not known."),
    ObligationKind.AGREEMENT: _("The end date of the data-processing agreement is not known."),
    ObligationKind.REVIEW: _(
        "The date of the last security review or the tier of the partner is not known."
    ),
}
