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
from include.partners.history import NOTHING, Known
from include.partners.register import Partner
from include.partners.terms import State, Term, What, review_term
from include.policy.partners import PartnerRules


@dataclass(frozen=True)
class Bound:
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

    def term(self, *wanted: What) -> Term | None:
        """The first term of one of these kinds."""
        return next((one for one in self.terms if one.what in wanted), None)

    @property
    def review(self) -> Term | None:
        """How its review stands."""
        return self.term(What.REVIEW, What.FAILED, What.REOPENED)

    def is_bound(self, today: date) -> bool:
        """Whether both agreements are in force."""
        found = [self.term(one) for one in (What.NDA, What.AGREEMENT)]
        return all(one is not None and one.state(today) is State.VALID for one in found)

    def is_reviewed(self, today: date) -> bool:
        """Whether its review holds."""
        return self.review is not None and self.review.state(today) is State.VALID


@dataclass(frozen=True)
class Standing:
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


def bind(partner: Partner, known: Known, rules: PartnerRules, zone: tzinfo) -> Bound:
    """Put together what binds a partner.

    Args:
        partner: of the register.
        known: its reviews.
        rules: partners.yaml.
        zone: whose days count.
    """
    if not partner.clear:
        return Bound(partner, (), known)
    tier = rules.tier(partner.tier)
    done = [one for one in (partner.last_review_on, known.passed_on(zone)) if one is not None]
    review = review_term(
        max(done, default=None),
        tier.review_every if tier else None,
        failed_on=known.failed_on(zone),
        reopened_on=known.reopened_on(zone),
    )
    terms = (
        Term(What.NDA, partner.nda_until, partner.nda_from),
        Term(What.AGREEMENT, partner.agreement_until),
        review,
    )
    return Bound(partner, terms, known)


def standing(
    number: str,
    partners: Mapping[str, Partner],
    known: Mapping[str, Known],
    rules: PartnerRules,
    today: date,
    zone: tzinfo,
) -> Standing:
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
        return Standing(number, (_("The register has no such partner."),))
    return of(bind(partner, known.get(number, NOTHING), rules, zone), today)


def of(bound: Bound, today: date) -> Standing:
    """Whether what binds a partner is enough."""
    partner = bound.partner
    if not partner.clear:
        return Standing(partner.number, (_("The register has more than one row of it."),))
    reasons = [against(term, today) for term in bound.terms]
    if not partner.live:
        reasons.append(_("It has no access."))
    return Standing(partner.number, tuple(one for one in reasons if one is not None))


def against(term: Term, today: date) -> Message | None:
    """What of a term stands against sharing; None where it holds."""
    state, what = term.state(today), term.what
    if state is State.VALID:
        return None
    if state is State.NOT_YET:
        return _("The confidentiality agreement begins on {day}.", day=term.first_day)
    if state is State.MISSING:
        return _MISSING[what]
    day = term.last_day
    match what:
        case What.NDA:
            return _("The confidentiality agreement ended on {day}.", day=day)
        case What.AGREEMENT:
            return _("The data-processing agreement ended on {day}.", day=day)
        case What.REVIEW:
            return _("The security review was due on {day}.", day=day)
        case What.FAILED:
            return _("The last security review failed.")
        case What.REOPENED:
            return _("The security review was opened again and is not decided on.")


_MISSING = {
    What.NDA: _("No end of a confidentiality agreement is known."),
    What.AGREEMENT: _("No end of a data-processing agreement is known."),
    What.REVIEW: _("No day of a security review, or no tier, is known."),
}
