"""Reminders about partners, and whether they are still due when they are sent.

A key names partner, term, its day and the rung: the same rung is told once, whatever is repeated.
A new day (an agreement that was renewed, a review that was passed) begins a new ladder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from include.messages import Message, _
from include.notify.notice import Notice, to_role
from include.partners import history
from include.partners.partner_status import (
    RUNS_EVERY,
    ObligationKind,
    PartnerObligations,
    State,
    Term,
    blocking_reason,
    bound_of,
    rung,
)
from include.partners.register import register_of
from include.partners.rules import CONTACT, REMINDER, PartnerRules
from include.workflow.run_context import RunContext

_OWN = _("Partner reviews")
_THEIRS = _("Your agreements with us")
_UNKNOWN = "none"  # in a key, in place of a day that nobody knows


@dataclass(frozen=True)
class Reminder:
    """A rung that a partner's term has reached.

    Attributes:
        bound: the partner.
        term: what ends or has ended.
        rung: days from the last day on, negative before it.
    """

    bound: PartnerObligations
    term: Term
    rung: int

    @property
    def day(self) -> str:
        """The last day, as it stands in the key."""
        return self.term.last_day.isoformat() if self.term.last_day else _UNKNOWN

    @property
    def due_on(self) -> date | None:
        """The day that people are told as due; a failed review, or one opened again, has none."""
        if self.term.what in (ObligationKind.FAILED, ObligationKind.REOPENED):
            return None
        return self.term.last_day

    @property
    def key(self) -> str:
        """What makes it the same reminder: ``3/nda/2027-01-31/-30``."""
        return f"{self.bound.partner.number}/{self.term.what}/{self.day}/{self.rung}"


def reached(
    run: RunContext[PartnerRules], bound: Iterable[PartnerObligations]
) -> Iterator[Reminder]:
    """Yield the rungs that partners with access reached today, at most one for each term."""
    today = run.today
    telling = run.workdays.on_or_after(today + RUNS_EVERY)
    for obligations in bound:
        if not obligations.partner.live:
            continue
        for term in obligations.terms:
            if term.state(today) is State.NOT_YET:
                continue  # it comes by itself; the report says so until then
            step = rung(term.last_day, today, telling, run.rules.ladder, run.rules.lapsed_every)
            if step is not None:
                yield Reminder(obligations, term, step)


def notices(run: RunContext[PartnerRules], reminders: Iterable[Reminder]) -> Iterator[Notice]:
    """Yield the reminders of the owner, and of the partner's contact if the pack says so."""
    for reminder in reminders:
        said = _ours(reminder.term, run.today)
        yield from to_role(
            run.roles[run.rules.owner],
            kind=REMINDER,
            key=reminder.key,
            heading=_OWN,
            line=_("{partner}: {what}", partner=reminder.bound.partner.title, what=said),
            due_on=reminder.due_on,
        )
        if run.rules.tell_partners and reminder.term.what is not ObligationKind.REOPENED:
            # Of an incident a partner hears from people, not from a reminder
            yield Notice(
                kind=CONTACT,
                key=reminder.key,
                recipient=f"partner:{reminder.bound.partner.number}",
                heading=_THEIRS,
                line=_theirs(reminder.term, run.today),
                name=reminder.bound.partner.name,
                address=reminder.bound.partner.mail,
                due_on=reminder.due_on,
            )


def _ours(term: Term, today: date) -> Message:
    if (lapsed := blocking_reason(term, today)) is not None:
        return _("{reason} Nothing may be shared until that is mended.", reason=lapsed)
    match term.what:
        case ObligationKind.NDA:
            return _("The confidentiality agreement ends on {day}.", day=term.last_day)
        case ObligationKind.AGREEMENT:
            return _("The data-processing agreement ends on {day}.", day=term.last_day)
        case _:
            return _(
                "The security review is due on {day}: issue its questionnaire.", day=term.last_day
            )


def _theirs(term: Term, today: date) -> Message:
    if (lapsed := blocking_reason(term, today)) is not None:
        return _("{reason} We share nothing with you until that is mended.", reason=lapsed)
    match term.what:
        case ObligationKind.NDA:
            return _(
                "The confidentiality agreement ends on {day}: please renew it with us.",
                day=term.last_day,
            )
        case ObligationKind.AGREEMENT:
            return _(
                "The data-processing agreement ends on {day}: please renew it with us.",
                day=term.last_day,
            )
        case _:
            return _(
                "The security review is due on {day}: please answer our questionnaire.",
                day=term.last_day,
            )


def still_due(run: RunContext[PartnerRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of reminders that are still due.

    A reminder is not due any more once its term has another last day or has ended meanwhile (it
    would state something wrong), a later rung of the term waits too, or the partner has no access.
    """
    partners = register_of(run).partners
    with run.state.connect() as conn:
        known = history.known(conn)
    live = {
        (bound.partner.number, str(term.what), day_of(term)): term
        for bound in bound_of(run, known, partners)
        if bound.partner.live
        for term in bound.terms
    }
    latest: dict[tuple[str, str, str], int] = {}
    for key in keys:
        about, step = _parts(key)
        latest[about] = max(step, latest.get(about, step))
    return {key for key in keys if _is_due(key, live, latest, run.today)}


def day_of(term: Term) -> str:
    """The last day of a term, as it stands in keys."""
    return term.last_day.isoformat() if term.last_day else _UNKNOWN


def _parts(key: str) -> tuple[tuple[str, str, str], int]:
    number, what, day, step = key.partition("#")[0].split("/")
    return (number, what, day), int(step)


def _is_due(
    key: str,
    live: dict[tuple[str, str, str], Term],
    latest: dict[tuple[str, str, str], int],
    today: date,
) -> bool:
    about, step = _parts(key)
    term = live.get(about)
    if term is None or step < latest[about]:
        return False
    return (step < 0) == (term.state(today) is State.VALID)
