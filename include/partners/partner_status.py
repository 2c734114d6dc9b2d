"""Whether anything may be shared with a partner today, and why not.

The workflow that shares customer information asks here before it gives anything out (policy 4.3,
4.4; Personal Information Protection Law (2021-11-01) 21). Nothing is allowed by silence: a partner
of whom something is not known is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, tzinfo

from include.messages import Message, _
from include.partners import history
from include.partners.history import NOTHING, Known
from include.partners.register import Partner, register_of
from include.partners.rules import PartnerRules
from include.partners.terms import ObligationKind, State, Term, review_term
from include.workflow.run_context import RunContext


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
        return next((one for one in self.terms if one.what in wanted), None)

    @property
    def review(self) -> Term | None:
        """How its review stands."""
        return self.term(ObligationKind.REVIEW, ObligationKind.FAILED, ObligationKind.REOPENED)

    def is_bound(self, today: date) -> bool:
        """Whether both agreements are in force."""
        found = [self.term(one) for one in (ObligationKind.NDA, ObligationKind.AGREEMENT)]
        return all(one is not None and one.state(today) is State.VALID for one in found)

    def is_reviewed(self, today: date) -> bool:
        """Whether its review holds."""
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
    """Put together what binds a partner.

    Args:
        partner: of the register.
        known: its reviews.
        rules: partners.yaml.
        zone: whose days count.
    """
    if not partner.clear:
        return PartnerObligations(partner, (), known)
    tier = rules.tier(partner.tier)
    done = [one for one in (partner.last_review_on, known.passed_on(zone)) if one is not None]
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
    """Say whether a partner may be given customer information today.

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
    """Whether what binds a partner is enough."""
    partner = bound.partner
    if not partner.clear:
        return PartnerStatus(partner.number, (_("The register has more than one row of it."),))
    reasons = [blocking_reason(term, today) for term in bound.terms]
    if not partner.live:
        reasons.append(_("It has no access."))
    return PartnerStatus(partner.number, tuple(one for one in reasons if one is not None))


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
