"""An incident at a partner opens its security review again; until that passes nothing is shared."""

from __future__ import annotations

from collections.abc import Callable

from include.incident import timeline
from include.incident.incident_run import IncidentRun, record_of, rules_of, scenario_of
from include.incident.names import STEP_OPEN, Kind
from include.messages import Message, _
from include.partners import reviews
from include.partners.register import register_of
from include.partners.rules import PartnerRules
from include.services.errors import ParcelSealError
from include.workflow.run_context import RunContext

REVIEW = "review"
"""Key of the entry's data: number of the partner's review; none where no review was opened."""


def reopen_review(
    run: IncidentRun, number: str, partners: Callable[[], RunContext[PartnerRules]] | None
) -> None:
    """Open the review of the partner at which an incident happened again, and enter it; once.

    What the partner answers later stays when the task is repeated. A drill reopens nothing.

    Args:
        run: the run or command.
        number: of the incident.
        partners: returns the context of the register; None if the pack has no register.
    """
    record = record_of(run, number)
    one = record.incident
    if scenario_of(run) is not None or not one.is_led or one.partner is None:
        return
    if not rules_of(run, record).type(one.type).partner or any(
        REVIEW in entry.data for entry in record.entries
    ):
        return
    now, by = run.clock.now(), run.triggered_by or run.run.dag_id
    with run.state.begin() as conn:
        review = None
        if partners is None:
            words = _no_register(one.partner)
        elif not _stands(partners, one.partner):
            words = _unknown(one.partner)
        else:
            because = rules_of(run, record).type(one.type).title["en"]
            made = reviews.reopen(
                conn, one.partner, because=because, by=by, at=now, incident=number
            )
            review, words = made.id, _opened(one.partner)
        timeline.append(
            conn, one.id, Kind.NOTE, words, by=STEP_OPEN, clock=run.clock,
            data={"partner": one.partner, REVIEW: review}, once="partner_review",
        )  # fmt: skip


def _stands(partners: Callable[[], RunContext[PartnerRules]], number: str) -> bool:
    """Whether the register has that partner; so it counts where nobody can read the register.

    A review too many is seen and decided on; a partner that leaks and goes on being served is not.
    """
    try:
        return number in register_of(partners()).partners
    except ParcelSealError:
        return True


def _opened(partner: str) -> Message:
    return _(
        "The security review of partner {partner} was opened again: nothing is shared with it "
        "until it passes.",
        partner=partner,
    )


def _unknown(partner: str) -> Message:
    return _(
        "The register has no partner {partner}: no security review was opened again. Look for its "
        "number (./parcelseal partners list), then reopen its review.",
        partner=partner,
    )


def _no_register(partner: str) -> Message:
    return _(
        "The policy pack has no partners.yaml: no security review of partner {partner} was opened "
        "again; stop sharing with it by other means.",
        partner=partner,
    )
