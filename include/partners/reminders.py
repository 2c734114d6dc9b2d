"""Create the reminders about partners, and check before sending whether they are still due.

The key of a reminder consists of the partner's number, the kind of the obligation, the last day on
which the obligation is in force, and the number of days from this day to the reminder. Each
reminder is sent once. If an agreement is renewed or a review passes, the last day changes and the
reminders start again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from include.messages import Message, _
from include.notify.notification import Notification, to_role
from include.partners import history
from include.partners.partner_status import (
    RUN_INTERVAL,
    ObligationKind,
    PartnerObligations,
    Term,
    TermState,
    blocking_reason,
    obligations_of,
    reminder_offset,
)
from include.partners.register import load_register
from include.partners.rules import CONTACT, REMINDER, PartnerRules
from include.workflow.run_context import RunContext

_OWNER_HEADING = _("Partner reviews")
_PARTNER_HEADING = _("Your agreements with us")
_NO_DAY = "none"  # in a key, for an unknown last day


@dataclass(frozen=True)
class Reminder:
    """A reminder that an agreement or review of a partner ends soon or has ended.

    Attributes:
        obligations: the partner and its obligations.
        term: agreement or review that ends soon or has ended.
        offset_days: number of days from the last day on which the agreement or review is in force
            to the reminder; negative before that day.
    """

    obligations: PartnerObligations
    term: Term
    offset_days: int

    @property
    def day(self) -> str:
        """Return the last day on which the agreement or review is in force, as part of `key`."""
        return day_in_key(self.term)

    @property
    def due_on(self) -> date | None:
        """Return the due date that the reminder states; None for a failed or reopened review."""
        if self.term.kind in (ObligationKind.FAILED, ObligationKind.REOPENED):
            return None
        return self.term.last_day

    @property
    def key(self) -> str:
        """Return the key that identifies the reminder, such as ``3/nda/2027-01-31/-30``."""
        return f"{self.obligations.partner.number}/{self.term.kind}/{self.day}/{self.offset_days}"


def due_reminders(
    run: RunContext[PartnerRules], all_obligations: Iterable[PartnerObligations]
) -> Iterator[Reminder]:
    """Yield the reminders that are due today, at most one for each obligation of a partner.

    There are no reminders about a partner without access to customer information, or about an
    agreement that is not yet in force.
    """
    today = run.today
    next_send_day = run.workdays.on_or_after(today + RUN_INTERVAL)
    for obligations in all_obligations:
        if not obligations.partner.live:
            continue
        for term in obligations.terms:
            if term.state(today) is TermState.NOT_YET:
                continue  # needs no action; the report shows the first day
            offset = reminder_offset(
                term.last_day, today, next_send_day, run.rules.ladder, run.rules.lapsed_every
            )
            if offset is not None:
                yield Reminder(obligations, term, offset)


def notifications(
    run: RunContext[PartnerRules], reminders: Iterable[Reminder]
) -> Iterator[Notification]:
    """Yield the notifications that send the reminders.

    Each reminder is sent to the role that is the owner in partners.yaml. If ``tell_partners`` is
    set in partners.yaml, it is also sent to the partner's contact, except for a reminder about a
    reopened review.
    """
    for reminder in reminders:
        text = _owner_text(reminder.term, run.today)
        yield from to_role(
            run.roles[run.rules.owner],
            kind=REMINDER,
            key=reminder.key,
            heading=_OWNER_HEADING,
            line=_(
                "{partner}: {reminder}",
                partner=reminder.obligations.partner.title,
                reminder=text,
            ),
            due_on=reminder.due_on,
        )
        if run.rules.tell_partners and reminder.term.kind is not ObligationKind.REOPENED:
            # After an incident, people inform the partner, so no reminder is sent
            yield Notification(
                kind=CONTACT,
                key=reminder.key,
                recipient=f"partner:{reminder.obligations.partner.number}",
                heading=_PARTNER_HEADING,
                line=_partner_text(reminder.term, run.today),
                name=reminder.obligations.partner.name,
                address=reminder.obligations.partner.mail,
                due_on=reminder.due_on,
            )


def _owner_text(term: Term, today: date) -> Message:
    if (reason := blocking_reason(term, today)) is not None:
        return _(
            "{reason} Do not share customer information with the partner until this is resolved.",
            reason=reason,
        )
    match term.kind:
        case ObligationKind.NDA:
            return _("The confidentiality agreement ends on {day}.", day=term.last_day)
        case ObligationKind.AGREEMENT:
            return _("The data-processing agreement ends on {day}.", day=term.last_day)
        case _:
            return _(
                "The security review is due by {day}. Issue its questionnaire to the partner.",
                day=term.last_day,
            )


def _partner_text(term: Term, today: date) -> Message:
    if (reason := blocking_reason(term, today)) is not None:
        return _(
            "{reason} We share no customer information with you until this is resolved.",
            reason=reason,
        )
    match term.kind:
        case ObligationKind.NDA:
            return _(
                "The confidentiality agreement ends on {day}. Please renew it with us.",
                day=term.last_day,
            )
        case ObligationKind.AGREEMENT:
            return _(
                "The data-processing agreement ends on {day}. Please renew it with us.",
                day=term.last_day,
            )
        case _:
            return _(
                "The security review is due by {day}. Please answer our questionnaire.",
                day=term.last_day,
            )


def still_due(run: RunContext[PartnerRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of reminders whose agreement or review still ends on the same day.

    A reminder is no longer due in each of these cases:

    - The last day of its agreement or review has changed, or the review has failed or was reopened
      since.
    - It was created before the end of its agreement or review, which has ended since.
    - ``keys`` contains a later reminder about the same agreement or review.
    - The partner has no access to customer information any more.

    Args:
        run: context of the run that sends the reminders.
        keys: keys of queued reminders.
    """
    partners = load_register(run).partners
    with run.state.connect() as conn:
        histories = history.load_histories(conn)
    terms = {
        (obligations.partner.number, str(term.kind), day_in_key(term)): term
        for obligations in obligations_of(run, histories, partners)
        if obligations.partner.live
        for term in obligations.terms
    }
    latest: dict[tuple[str, str, str], int] = {}
    for key in keys:
        term_key, offset = _parse_key(key)
        latest[term_key] = max(offset, latest.get(term_key, offset))
    return {key for key in keys if _is_due(key, terms, latest, run.today)}


def day_in_key(term: Term) -> str:
    """Return the last day of an agreement or review as the text that reminder keys contain."""
    return term.last_day.isoformat() if term.last_day else _NO_DAY


def _parse_key(key: str) -> tuple[tuple[str, str, str], int]:
    number, kind, day, offset = key.partition("#")[0].split("/")
    return (number, kind, day), int(offset)


def _is_due(
    key: str,
    terms: dict[tuple[str, str, str], Term],
    latest: dict[tuple[str, str, str], int],
    today: date,
) -> bool:
    term_key, offset = _parse_key(key)
    term = terms.get(term_key)
    if term is None or offset < latest[term_key]:
        return False
    return (offset < 0) == (term.state(today) is TermState.VALID)
