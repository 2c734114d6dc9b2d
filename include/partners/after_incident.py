"""The reaction to an incident at a partner: its security review is opened again."""

from __future__ import annotations

from sqlalchemy import Connection

from include.messages import _
from include.partners import reviews
from include.partners.register import register_of
from include.partners.rules import PartnerRules
from include.services.errors import ParcelSealError
from include.workflow.reaction import PartnerIncident, PartnerReaction
from include.workflow.run_context import RunContext


def reopen_review(
    run: RunContext[PartnerRules], conn: Connection, incident: PartnerIncident
) -> PartnerReaction:
    """Open the review of a partner again; nothing is shared with the partner until it passes.

    Args:
        run: of the register.
        conn: the state database, in a transaction.
        incident: at the partner.
    """
    partner = incident.partner
    if not _is_registered(run, partner):
        return PartnerReaction(
            None,
            _(
                "The register has no partner {partner}: no security review was opened again. Look "
                "for its number (./parcelseal partners list), then reopen its review.",
                partner=partner,
            ),
        )
    review = reviews.reopen(
        conn,
        partner,
        because=incident.because,
        by=incident.by,
        at=incident.at,
        incident=incident.incident,
    )
    return PartnerReaction(
        review.id,
        _(
            "The security review of partner {partner} was opened again: nothing is shared with it "
            "until it passes.",
            partner=partner,
        ),
    )


def _is_registered(run: RunContext[PartnerRules], partner: str) -> bool:
    """Return whether the register has the partner, or cannot be read.

    A review too many is noticed and decided on; a partner that leaks and is served on is not.
    """
    try:
        return partner in register_of(run).partners
    except ParcelSealError:
        return True
